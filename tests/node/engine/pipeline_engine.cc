#include "tests/node/engine/pipeline_engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace muselet::testing {

PipelineEngine::PipelineEngine(const PipelineOptions& options)
    : options_(options),
      model_(64, options.block_count),
      random_(options.seed),
      stages_(options.stages) {}

PipelineEngine::~PipelineEngine() {
  Stop();
}

void PipelineEngine::Start(Handlers handlers) {
  handlers_ = std::move(handlers);
  for (uint32_t number = 0; number < options_.stages; ++number) {
    stages_[number].thread = std::thread([this, number] { Run(number); });
  }
}

void PipelineEngine::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (Stage& stage : stages_) {
    if (stage.thread.joinable()) stage.thread.join();
  }
}

void PipelineEngine::Submit(WorkPointer work) {
  const uint32_t submitted = ++submitted_;
  CHECK(submitted <= plans_max() || state_epoch() > 1, "too many plans");
  submitted_max_ = std::max(submitted_max_.load(), submitted);
  if (sequence_groups() > 1) {
    for (const TokenId token : work->plan.tokens) {
      CHECK(token != kTokenFromEarlierPlan, "a group's plan leaves a token open");
    }
  }
  {
    const std::lock_guard lock(mutex_);
    stages_[0].queue.push_back(std::move(work));
  }
  changed_.notify_all();
}

void PipelineEngine::SetAvailable(bool available) {
  if (!available) ++state_epoch_;
  available_ = available;
  handlers_.availability();
}

void PipelineEngine::Run(uint32_t number) {
  Stage& stage = stages_[number];
  while (true) {
    WorkPointer work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !stage.queue.empty(); });
      if (stopping_) return;
      work = std::move(stage.queue.front());
      stage.queue.pop_front();
    }
    Execute(number, work.get());
    if (number + 1 == options_.stages) {
      Finish(std::move(work));
      continue;
    }
    {
      const std::lock_guard lock(mutex_);
      stages_[number + 1].queue.push_back(std::move(work));
    }
    changed_.notify_all();
  }
}

void PipelineEngine::Execute(uint32_t number, StepWork* work) {
  if (work->state_epoch != state_epoch()) return;
  Stage& stage = stages_[number];
  const bool last = number + 1 == options_.stages;
  if (std::exchange(stage.state_epoch, work->state_epoch) != work->state_epoch) {
    stage.executor =
        std::make_unique<StepExecutor>(std::make_shared<ToyModel>(64, options_.block_count),
                                       options_.slot_count, ExecutorRole{.samples = last});
  }
  if (last) {
    stage.executor->Execute(work);
  } else {
    // Each rank gets a copy.
    StepWork own;
    own.plan = work->plan;
    own.starts = work->starts;
    stage.executor->Execute(&own);
    CHECK(own.fault.ok() && own.result.slices.empty(), "a stage that does not sample gave tokens");
  }
  work->step_us = 50;
}

bool PipelineEngine::LosesNow() {
  return options_.loss_every > 0 && losses_ < options_.losses_max &&
         random_() % options_.loss_every == 0;
}

void PipelineEngine::Finish(WorkPointer work) {
  // Before the result is out, or after it.
  const bool before = LosesNow();
  const bool after = !before && LosesNow();
  const auto lose = [this] {
    ++losses_;
    ++state_epoch_;
    available_ = false;
    handlers_.availability();
  };
  if (before) lose();
  if (!available() || work->state_epoch != state_epoch()) {
    work->state_lost = true;
    work->fault = Unavailable("a rank was lost");
  }
  --submitted_;
  handlers_.done(std::move(work));
  if (after) lose();
  if (!before && !after) return;
  for (uint32_t turns = random_() % 20; turns > 0; --turns) std::this_thread::yield();
  available_ = true;
  handlers_.availability();
}

}  // namespace muselet::testing
