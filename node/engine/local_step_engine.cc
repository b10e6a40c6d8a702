#include "node/engine/local_step_engine.h"

#include <pthread.h>

#include <utility>

#include "base/check.h"

namespace muselet {

LocalStepEngine::LocalStepEngine(std::shared_ptr<Model> model, uint32_t slot_count,
                                 const Clock& clock)
    : model_(std::move(model)), clock_(clock), executor_(model_, slot_count) {}

LocalStepEngine::~LocalStepEngine() {
  Stop();
}

void LocalStepEngine::Start(Handlers handlers) {
  CHECK(!thread_.joinable(), "an engine starts once");
  handlers_ = std::move(handlers);
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "step");
    StepThread();
  });
}

void LocalStepEngine::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LocalStepEngine::Submit(WorkPointer work) {
  {
    const std::lock_guard lock(mutex_);
    planned_.push_back(std::move(work));
  }
  wake_.notify_one();
}

void LocalStepEngine::StepThread() {
  while (WorkPointer work = NextWork()) {
    const int64_t start_us = clock_.NowUs();
    executor_.Execute(work.get());
    work->step_us = clock_.NowUs() - start_us;
    handlers_.done(std::move(work));
  }
}

StepEngine::WorkPointer LocalStepEngine::NextWork() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !planned_.empty(); });
  if (stopping_) return nullptr;
  WorkPointer work = std::move(planned_.front());
  planned_.erase(planned_.begin());
  return work;
}

}  // namespace muselet
