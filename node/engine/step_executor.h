// What a rank computes of each step: resolves what a plan left open, runs the model, draws the
// tokens. Knows of each slot what the sampler needs and the tokens that it drew itself, and nothing
// of the batcher: the next plan may be made meanwhile, by another thread.
//
// Step thread only. After the first steps nothing is allocated for a token that is drawn without
// logprobs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "node/engine/sampler.h"
#include "node/engine/step_engine.h"
#include "node/model/model.h"

namespace muselet {

// Between the ranks of a tensor group that take plans with kTokenFromEarlierPlan.
class TokenExchange {
 public:
  virtual ~TokenExchange() = default;
  // Called for each step with at least one slice that samples, with one id for each such slice, in
  // slice order: drawn, if this rank samples, else to be overwritten with what that rank drew. A
  // fault fails the step. Step thread only.
  virtual Status Exchange(std::span<TokenId> drawn) = 0;
};

// Of a replica that is one rank: it samples, and has nobody to tell.
struct ExecutorRole {
  bool samples = true;  // else the model's logits are not looked at, and results stay empty
  TokenExchange* exchange =
      nullptr;  // null: plans name every token, or no other rank needs to know
};

class StepExecutor {
 public:
  // What `role` points to outlives the executor.
  StepExecutor(std::shared_ptr<Model> model, uint32_t slot_count, ExecutorRole role = {});

  // Fills fault and result. Steps come in the order of their plans.
  void Execute(StepWork* work);

 private:
  struct Slot {
    SlotStart start;
    PenaltyCounts counts;
    TokenId last_token = 0;  // the one that a plan made ahead leaves open
  };
  void Adopt(SlotStart start);
  void Resolve(StepPlan* plan) const;
  Status ExchangeDrawn(const StepPlan& plan);
  void Sample(const StepPlan& plan, std::span<const float> logits, StepResult* result);
  void SampleSlice(const SequenceSlice& slice, std::span<const float> logits, SliceResult* result);
  void TakePromptLogprobs(const Slot& slot, const SequenceSlice& slice,
                          std::span<const float> logits, SliceResult* result);

  const std::shared_ptr<Model> model_;
  const ExecutorRole role_;
  Sampler sampler_;
  std::vector<Slot> slots_;
  std::vector<TokenId> drawn_;  // of the step that is going on, for the exchange
};

// Whether the sampler must see all tokens of such a sequence.
bool NeedsTokens(const SamplingParams& params);

}  // namespace muselet
