// The heart of a replica: the plan thread owns the batcher, takes commands, plans, commits, hands
// updates over and counts, while an engine (node/engine/step_engine) computes the plans that are
// outstanding, on a thread of this process or on the ranks of a sharded replica.
//
// With one group of sequences plan k + 1 is made while step k computes, as late as is safe, half
// way through it, so that what arrives meanwhile still gets in. With several groups a plan is made
// as soon as the engine has room for one. What plans hold never depends on when they were made
// (scheduler/batch/batcher).
//
// While the engine is not available nothing is planned: sequences wait, and end when their time is
// over. When it lost its state all that ran starts again from the tokens that are known.
//
// With nothing to compute the thread is parked and takes no CPU. It does not look at a socket:
// commands come in through Push, updates go out through the handler, progress is read by whoever
// reports it.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/messages.h"
#include "monitoring/metrics.h"
#include "node/engine/step_engine.h"
#include "node/model/model.h"
#include "scheduler/batch/batcher.h"

namespace muselet {

using StepCommand = std::variant<Submit, Cancel>;

// A moment of the step loop. Times are the clock's NowUs.
struct StepProgress {
  uint64_t steps = 0;
  int64_t step_us = 0;           // moving average
  int64_t busy_since_us = 0;     // start of the step or turn that is going on; 0 = parked
  int64_t last_step_end_us = 0;  // 0 = no step yet
  uint32_t running = 0;
  uint32_t waiting = 0;
  uint64_t kv_blocks_used = 0;
  uint64_t kv_blocks_total = 0;
  uint64_t faults = 0;      // steps that the model failed
  uint64_t losses = 0;      // steps that were lost with the engine's state
  PrefillForecast prefill;  // a few milliseconds old at most, while something runs
  bool available = true;    // the engine takes plans
};

class StepLoop {
 public:
  // Called on the plan thread with at least one update.
  using UpdatesHandler = std::function<void(std::vector<TokenUpdate>)>;

  // The clock outlives the loop. Start makes the thread and starts the engine.
  StepLoop(std::unique_ptr<StepEngine> engine, const BatchOptions& options,
           const NodeMetrics& metrics, const Clock& clock, UpdatesHandler handler);
  // Over a LocalStepEngine.
  StepLoop(std::shared_ptr<Model> model, const BatchOptions& options, const NodeMetrics& metrics,
           const Clock& clock, UpdatesHandler handler);
  ~StepLoop();  // Stop
  StepLoop(const StepLoop&) = delete;
  StepLoop& operator=(const StepLoop&) = delete;

  void Start();
  // Ends the thread, then the engine; what is unfinished gets no update.
  // Idempotent. Not from the handler.
  void Stop();

  // Commands in the order given. Any thread. A Submit that cannot be taken is answered through the
  // handler, with FinishReason::kError.
  void Push(std::vector<StepCommand> commands);
  StepProgress progress() const;  // any thread
  // Batcher::served, as old as StepProgress::prefill. Any thread.
  std::vector<SurfaceTokens> served() const;
  // What changed in the prefix cache since the last call. Any thread.
  PrefixChanges TakeCacheChanges();
  // The longest sequence, prompt and answer.
  uint32_t context_tokens() const { return batcher_.context_tokens(); }
  const ModelInfo& model_info() const { return engine_->info(); }
  bool notices_hangs() const { return engine_->notices_hangs(); }

 private:
  using WorkPointer = StepEngine::WorkPointer;

  // Plan thread.
  void PlanLoop();
  // Waits for something to do. False: Stop was called.
  bool AwaitEvents();
  void Apply(StepCommand command);
  void Finish(WorkPointer work);
  void CommitOrFail(const StepWork& work);
  // False: not now, and nothing is outstanding of a state that was lost.
  bool EngineTakesPlans();
  void StartAgain(const Status& reason, int64_t lost_us);
  void BlameForOwnFaults();
  // Makes plans until enough are outstanding, or there is nothing more to plan now.
  void PlanAhead();
  void PlanGroups();
  bool MakePlan();
  void FillStarts(StepWork* work);
  void CountPlan(const StepPlan& plan);
  void HandOverUpdates();
  void PublishState();
  void PublishForecast();
  // The engine's threads.
  void TakeBack(WorkPointer work);
  void OnAvailability();

  const std::unique_ptr<StepEngine> engine_;
  const Clock& clock_;
  const NodeMetrics metrics_;
  const UpdatesHandler handler_;

  // Plan thread only.
  Batcher batcher_;
  std::vector<uint64_t> runs_;  // by slot: the run whose start the executor was told
  BatchCounters counted_;       // as far as the metrics know
  std::vector<TokenUpdate> refusals_;
  std::vector<WorkPointer> spares_;
  std::vector<int64_t> predicted_us_;   // of the outstanding plans, oldest first
  int64_t running_since_us_ = 0;        // since when the oldest of them may compute
  int64_t forecast_us_ = 0;             // when the last one was made
  std::optional<int64_t> plan_due_us_;  // when to look for one to make, if nothing happens before
  uint64_t own_faults_ = 0;             // of the engine, as far as sequences were blamed for them
  bool lost_ = false;                   // since the engine took plans for the last time
  uint64_t state_epoch_ = 0;            // of the engine, as far as the batcher knows
  std::vector<StepCommand> commands_;
  std::vector<WorkPointer> finished_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable plan_wake_;
  std::vector<StepCommand> inbox_;
  std::vector<WorkPointer> done_;  // oldest first
  bool engine_changed_ = false;
  bool stopping_ = false;
  StepProgress progress_;
  std::vector<SurfaceTokens> served_;  // by surface
  PrefixChanges cache_changes_;

  std::thread plan_thread_;
};

}  // namespace muselet
