// The heart of a replica, on two threads, so that plan k + 1 is made while step k computes:
//
//   plan thread  owns the batcher: takes commands, plans, commits, hands updates over, counts
//   step thread  owns the executor: model and sampler; goes from a finished step to the next plan
//                without waiting, if there is one
//
// A plan is made ahead as late as is safe, half way through the step before it, so that what
// arrives meanwhile still gets in. At most kPlansMax are outstanding; what they hold never depends
// on when they were made (scheduler/batch/batcher). With nothing to compute both threads are parked
// and take no CPU. Neither looks at a socket: commands come in through Push, updates go out through
// the handler, progress is read by whoever reports it.
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
#include "node/engine/step_executor.h"
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
  uint64_t faults = 0;  // steps that the model failed
};

class StepLoop {
 public:
  static constexpr size_t kPlansMax = 2;  // outstanding: one computes, one is next

  // Called on the plan thread with at least one update.
  using UpdatesHandler = std::function<void(std::vector<TokenUpdate>)>;

  // The clock outlives the loop. Start makes the threads.
  StepLoop(std::shared_ptr<Model> model, const BatchOptions& options, const NodeMetrics& metrics,
           const Clock& clock, UpdatesHandler handler);
  ~StepLoop();  // Stop
  StepLoop(const StepLoop&) = delete;
  StepLoop& operator=(const StepLoop&) = delete;

  void Start();
  // Ends the threads after the step that is going on; what is unfinished gets no update.
  // Idempotent. Not from the handler.
  void Stop();

  // Commands in the order given. Any thread. A Submit that cannot be taken is answered through the
  // handler, with FinishReason::kError.
  void Push(std::vector<StepCommand> commands);
  StepProgress progress() const;  // any thread
  // The longest sequence, prompt and answer.
  uint32_t context_tokens() const { return batcher_.context_tokens(); }

 private:
  using WorkPointer = std::unique_ptr<StepWork>;

  // Plan thread.
  void PlanLoop();
  // Waits for something to do. False: Stop was called.
  bool AwaitEvents();
  void Apply(StepCommand command);
  void Finish(WorkPointer work);
  // Makes plans until enough are outstanding, or there is nothing more to plan now.
  void PlanAhead();
  bool MakePlan();
  void FillStarts(StepWork* work);
  void CountPlan(const StepPlan& plan);
  void HandOverUpdates();
  void PublishState();
  // Step thread.
  void StepThread();
  WorkPointer NextWork();
  void HandBack(WorkPointer work);

  const std::shared_ptr<Model> model_;
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
  std::optional<int64_t> plan_due_us_;  // when the next one is to be made
  std::vector<StepCommand> commands_;
  std::vector<WorkPointer> finished_;

  StepExecutor executor_;  // step thread only

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable plan_wake_;
  std::condition_variable step_wake_;
  std::vector<StepCommand> inbox_;
  std::vector<WorkPointer> planned_;  // for the step thread, oldest first
  std::vector<WorkPointer> done_;     // for the plan thread, oldest first
  bool stopping_ = false;
  StepProgress progress_;

  std::thread plan_thread_;
  std::thread step_thread_;
};

}  // namespace muselet
