// The engine of a replica that is one rank: computes plans with a model on a thread of its own,
// which goes from a finished step to the next plan without waiting, if there is one, and is parked
// otherwise. Always available; nothing is ever lost.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "node/engine/step_engine.h"
#include "node/engine/step_executor.h"
#include "node/model/model.h"

namespace muselet {

class LocalStepEngine final : public StepEngine {
 public:
  // `slot_count`: BatchOptions::sequences_max. The clock outlives the engine.
  LocalStepEngine(std::shared_ptr<Model> model, uint32_t slot_count, const Clock& clock);
  ~LocalStepEngine() override;  // Stop

  const ModelInfo& info() const override { return model_->info(); }
  uint32_t plans_max() const override { return 2; }  // one computes, one is next
  uint32_t sequence_groups() const override { return 1; }
  void Start(Handlers handlers) override;
  // After the step that is going on.
  void Stop() override;
  bool available() const override { return true; }
  uint64_t state_epoch() const override { return 1; }
  void Submit(WorkPointer work) override;

 private:
  void StepThread();
  WorkPointer NextWork();  // null: Stop was called

  const std::shared_ptr<Model> model_;
  const Clock& clock_;
  Handlers handlers_;
  StepExecutor executor_;  // step thread only

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<WorkPointer> planned_;  // oldest first
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace muselet
