// Where plans are computed: on a thread of this process, or by the ranks of a sharded replica. The
// step loop (node/engine/step_loop) hands plans in by number and gets their results back in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/messages.h"
#include "base/status.h"
#include "node/model/model.h"
#include "scheduler/batch/step_plan.h"

namespace muselet {

// A slot changes hands: what the sampler must know of the sequence that takes it.
struct SlotStart {
  SequenceSlot slot = 0;
  SamplingParams sampling;
  StopRules stop;
  uint32_t choice = 0;
  uint32_t prompt_count = 0;
  uint32_t token_limit = 0;     // prompt and answer together have at most this many tokens
  std::vector<TokenId> tokens;  // known so far; only where penalties or prompt logprobs need them
};

// A step on its way through the replica; used again for later ones.
struct StepWork {
  StepPlan plan;
  uint64_t state_epoch = 0;       // the engine's, when the plan was made; set by the step loop
  std::vector<SlotStart> starts;  // of slots that the plan is the first to name
  Status fault;                   // not OK: the step gave nothing
  // With a fault: the KV of every sequence is gone, nobody is to blame, and all is to be computed
  // again from the tokens that are known (a rank was lost).
  bool state_lost = false;
  StepResult result;
  // How long it computed. With state_lost: so long, and it did not end; 0 if that is not known, or
  // has nothing to do with the step (a process died).
  int64_t step_us = 0;
};

class StepEngine {
 public:
  using WorkPointer = std::unique_ptr<StepWork>;
  struct Handlers {
    // Work comes back, in the order of Submit, each exactly once. Any thread.
    std::function<void(WorkPointer)> done;
    // available() changed. Any thread.
    std::function<void()> availability;
  };

  virtual ~StepEngine() = default;
  virtual const ModelInfo& info() const = 0;

  // How many plans the engine wants outstanding.
  virtual uint32_t plans_max() const = 0;
  // Into how many disjoint groups the running sequences are divided, each group with plans of its
  // own, so that as many stages compute at once. 1: a sequence may be planned one step ahead with
  // kTokenFromEarlierPlan instead.
  virtual uint32_t sequence_groups() const = 0;

  virtual void Start(Handlers handlers) = 0;
  // What is outstanding does not come back. Idempotent. Not from a handler.
  virtual void Stop() = 0;
  // Takes plans now. While false, plans that are handed in come back with state_lost. Any thread.
  virtual bool available() const = 0;
  // Grows whenever the KV of all sequences is lost, before the work that is lost with it comes
  // back, and never otherwise; at least 1. Work of an older epoch comes back with state_lost. So a
  // loss that nothing outstanding tells of is noticed, too. Any thread.
  virtual uint64_t state_epoch() const = 0;
  // Notices by itself that a step hangs, and gives its work back with state_lost.
  virtual bool notices_hangs() const { return false; }
  // How often a process that computed plans has died by its own fault, by a signal of its own or a
  // fault of its device. What was lost with it is counted before the engine is available again.
  // Any thread.
  virtual uint64_t own_faults() const { return 0; }
  // Plan thread only; not after Stop.
  virtual void Submit(WorkPointer work) = 0;
};

}  // namespace muselet
