// The heart of a replica: one thread that owns batcher, model and samplers.
//
//   drain the inbox -> Plan -> Forward -> sample -> Commit -> hand the updates over -> again
//
// With nothing to compute the thread is parked and takes no CPU. It looks at no socket: commands
// come in through Push, updates go out through the handler, progress is read by whoever reports it.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/messages.h"
#include "monitoring/metrics.h"
#include "node/engine/sampler.h"
#include "node/model/model.h"
#include "scheduler/batch/batcher.h"

namespace muselet {

using StepCommand = std::variant<Submit, Cancel>;

// A moment of the step loop. Times are the clock's NowUs.
struct StepProgress {
  uint64_t steps = 0;
  int64_t step_us = 0;           // moving average
  int64_t busy_since_us = 0;     // start of the turn that is going on; 0 = parked
  int64_t last_step_end_us = 0;  // 0 = no step yet
  uint32_t running = 0;
  uint32_t waiting = 0;
  uint64_t kv_blocks_used = 0;
  uint64_t kv_blocks_total = 0;
  uint64_t faults = 0;  // steps that the model failed
};

class StepLoop {
 public:
  // Called on the step thread with at least one update.
  using UpdatesHandler = std::function<void(std::vector<TokenUpdate>)>;

  // The clock outlives the loop. Starts parked; Start makes the thread.
  StepLoop(std::shared_ptr<Model> model, const BatchOptions& options, const NodeMetrics& metrics,
           const Clock& clock, UpdatesHandler handler);
  ~StepLoop();  // Stop
  StepLoop(const StepLoop&) = delete;
  StepLoop& operator=(const StepLoop&) = delete;

  void Start();
  // Ends the thread after the step that is going on; what is unfinished gets no update. Idempotent.
  // Not from the handler.
  void Stop();

  // Commands in the order given. Any thread. A Submit that cannot be taken is answered through the
  // handler, with FinishReason::kError.
  void Push(std::vector<StepCommand> commands);
  StepProgress progress() const;  // any thread
  // The longest sequence, prompt and answer.
  uint32_t context_tokens() const { return batcher_.context_tokens(); }

 private:
  struct SlotState {
    uint64_t run = 0;  // of the sequence that the counts belong to
    PenaltyCounts counts;
  };

  void Run();
  // False: Stop was called.
  bool TakeCommands(bool may_park, std::vector<StepCommand>* commands);
  void Apply(StepCommand command);
  // False if there was nothing to compute.
  bool Step();
  StepResult Sample(const StepPlan& plan, std::span<const float> logits);
  SliceResult SampleSlice(const SequenceSlice& slice, std::span<const float> logits);
  void CountPlan(const StepPlan& plan);
  void CountStep(int64_t step_us);
  void HandOverUpdates();
  void PublishState();

  const std::shared_ptr<Model> model_;
  const Clock& clock_;
  const NodeMetrics metrics_;
  const UpdatesHandler handler_;

  // Step thread only.
  Batcher batcher_;
  Sampler sampler_;
  std::vector<SlotState> slots_;
  BatchCounters counted_;  // as far as the metrics know
  std::vector<TokenUpdate> refusals_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<StepCommand> inbox_;
  bool stopping_ = false;
  StepProgress progress_;

  std::thread thread_;
};

}  // namespace muselet
