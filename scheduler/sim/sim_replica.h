// The step loop of a replica on virtual time: the real batcher, a model that is one hash and steps
// that take as long as a roofline says. One plan computes while the next is made half way through
// it, as node/engine/step_loop does. Lives in an actor and is destroyed with it. Single-threaded.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/messages.h"
#include "base/status.h"
#include "scheduler/batch/batcher.h"
#include "scheduler/sim/chain_model.h"
#include "scheduler/sim/sim_world.h"
#include "scheduler/sim/step_cost.h"

namespace muselet {

struct SimReplicaOptions {
  BatchOptions batch;
  uint32_t vocab_size = 64;
  uint32_t context_tokens = 512;
  uint32_t block_count = 256;
  uint32_t block_tokens = 16;
  StepCost cost;
  double noise = 0;  // a step takes up to so much of its time more
  // Tokens depend on the whole prefix through the cache's blocks. False: on seed, choice and
  // position alone, without memory, for large clusters.
  bool checks_cache = true;
};

class SimReplica {
 public:
  using UpdatesHandler = std::function<void(std::vector<TokenUpdate>)>;

  // `process`: the one that it computes in. The handler may not destroy the replica.
  SimReplica(SimWorld& world, SimProcess process, const SimReplicaOptions& options,
             UpdatesHandler handler);

  // What cannot be taken is answered through the handler, before this returns.
  void Admit(Submit submit);
  void Cancel(const SequenceId& sequence, uint32_t attempt);

  // Faults. The step that computes gives nothing (it ends with the error), or all KV is lost.
  void FailStep(const Status& fault) { next_fault_ = fault; }
  void LoseState();
  // Steps take so many times as long from now on.
  void SetSlowness(double factor) { slowness_ = factor; }

  const Batcher& batcher() const { return batcher_; }
  Batcher& batcher() { return batcher_; }
  uint64_t steps() const { return steps_; }
  int64_t step_us() const { return step_us_; }  // moving average
  int64_t busy_us() const { return busy_us_; }  // computed so far, all together

 private:
  // A slot changes hands in this plan.
  struct SlotBegin {
    SequenceSlot slot = 0;
    uint64_t seed = 0;
    uint32_t choice = 0;
  };
  struct Planned {
    StepPlan plan;
    int64_t cost_us = 0;
    std::vector<SlotBegin> begins;
  };
  bool MakePlan();
  void Go();
  void BeginStep();
  void EndStep();
  void HandOver();
  int64_t CostUs(const StepPlan& plan);
  StepResult Compute(const Planned& step);

  SimWorld& world_;
  const SimProcess process_;
  const SimReplicaOptions options_;
  const UpdatesHandler handler_;
  Batcher batcher_;
  ChainEngine engine_;
  std::vector<uint64_t> runs_;  // by slot
  std::deque<Planned> outstanding_;
  uint64_t turn_ = 0;  // events of an earlier one are late
  bool computing_ = false;
  Status next_fault_;
  double slowness_ = 1;
  uint64_t steps_ = 0;
  int64_t step_us_ = 0;
  int64_t busy_us_ = 0;
};

}  // namespace muselet
