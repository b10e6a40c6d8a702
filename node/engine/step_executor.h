// Computes steps: resolves what a plan left open, runs the model, draws the tokens. Knows of each
// slot what the sampler needs and the tokens that it drew itself, and nothing of the batcher: the
// next plan may be made meanwhile, by another thread.
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

class StepExecutor {
 public:
  StepExecutor(std::shared_ptr<Model> model, uint32_t slot_count);

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
  void Sample(const StepPlan& plan, std::span<const float> logits, StepResult* result);
  void SampleSlice(const SequenceSlice& slice, std::span<const float> logits, SliceResult* result);
  void TakePromptLogprobs(const Slot& slot, const SequenceSlice& slice,
                          std::span<const float> logits, SliceResult* result);

  const std::shared_ptr<Model> model_;
  Sampler sampler_;
  std::vector<Slot> slots_;
};

// Whether the sampler must see all tokens of such a sequence.
bool NeedsTokens(const SamplingParams& params);

}  // namespace muselet
