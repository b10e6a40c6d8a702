// An engine of several stages for tests: each stage is a thread with a model and an executor of its
// own, as a rank would be; the last one samples. Results come late and in order. On request it
// loses its state now and then, at moments drawn from a seed.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "node/engine/step_engine.h"
#include "node/engine/step_executor.h"
#include "tests/node/engine/toy_model.h"

namespace muselet::testing {

struct PipelineOptions {
  uint32_t stages = 1;
  uint32_t slot_count = 64;
  uint32_t block_count = 64;
  uint32_t seed = 1;
  uint32_t loss_every = 0;   // steps, about; 0 = nothing is lost
  uint32_t losses_max = 50;  // so that every run comes to an end
};

class PipelineEngine final : public StepEngine {
 public:
  explicit PipelineEngine(const PipelineOptions& options);
  ~PipelineEngine() override;

  const ModelInfo& info() const override { return model_.info(); }
  uint32_t plans_max() const override { return options_.stages + 1; }
  uint32_t sequence_groups() const override {
    return options_.stages == 1 ? 1 : options_.stages + 1;
  }
  void Start(Handlers handlers) override;
  void Stop() override;
  bool available() const override { return available_.load(); }
  uint64_t state_epoch() const override { return state_epoch_.load(); }
  bool notices_hangs() const override { return true; }
  void Submit(WorkPointer work) override;

  // False: as if the ranks were lost.
  void SetAvailable(bool available);

  uint32_t losses() const { return losses_.load(); }
  uint32_t submitted_max() const { return submitted_max_.load(); }  // at once

 private:
  struct Stage {
    uint64_t state_epoch = 0;
    std::unique_ptr<StepExecutor> executor;
    std::deque<WorkPointer> queue;
    std::thread thread;
  };
  void Run(uint32_t number);
  void Execute(uint32_t number, StepWork* work);
  void Finish(WorkPointer work);
  bool LosesNow();

  const PipelineOptions options_;
  const ToyModel model_;  // for its info
  Handlers handlers_;
  std::atomic<bool> available_ = true;
  std::atomic<uint64_t> state_epoch_ = 1;
  std::atomic<uint32_t> losses_ = 0;
  std::atomic<uint32_t> submitted_ = 0;
  std::atomic<uint32_t> submitted_max_ = 0;
  std::mt19937 random_;  // last stage only

  std::mutex mutex_;  // guards the queues and what follows
  std::condition_variable changed_;
  std::vector<Stage> stages_;
  bool stopping_ = false;
};

}  // namespace muselet::testing
