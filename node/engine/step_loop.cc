#include "node/engine/step_loop.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "node/engine/local_step_engine.h"
#include "node/engine/step_executor.h"

namespace muselet {
namespace {

BatchModel BatchModelOf(const StepEngine& engine) {
  const ModelInfo& info = engine.info();
  BatchModel model;
  model.sequence_groups = engine.sequence_groups();
  model.vocab_size = info.vocab_size;
  model.context_tokens = info.context_tokens;
  model.kv.block_tokens = info.block_tokens;
  for (const KvGroupInfo& group : info.kv_groups) {
    model.kv.groups.push_back({group.block_count, group.window_tokens});
  }
  return model;
}

// A plan made ahead is made at least this long before it is needed: a thread that sleeps may wake
// late.
constexpr int64_t kPlanAheadLeastUs = 3'000;
constexpr int64_t kForecastUs = 10'000;
constexpr int64_t kWaitMostUs = 3'600'000'000;  // in one go: a deadline may be absurdly far

TokenUpdate Refusal(const SequenceId& sequence, uint32_t attempt, const Status& reason) {
  TokenUpdate update;
  update.sequence = sequence;
  update.attempt = attempt;
  update.finish = FinishReason::kError;
  update.error_code = reason.code();
  update.error = reason.message();
  return update;
}

}  // namespace

StepLoop::StepLoop(std::shared_ptr<Model> model, const BatchOptions& options,
                   const NodeMetrics& metrics, const Clock& clock, UpdatesHandler handler)
    : StepLoop(std::make_unique<LocalStepEngine>(std::move(model), options.sequences_max, clock),
               options, metrics, clock, std::move(handler)) {}

StepLoop::StepLoop(std::unique_ptr<StepEngine> engine, const BatchOptions& options,
                   const NodeMetrics& metrics, const Clock& clock, UpdatesHandler handler)
    : engine_(std::move(engine)),
      clock_(clock),
      metrics_(metrics),
      handler_(std::move(handler)),
      batcher_(options, BatchModelOf(*engine_)),
      runs_(options.sequences_max),
      state_epoch_(engine_->state_epoch()) {
  batcher_.RecordCacheChanges();
  PublishState();
}

StepLoop::~StepLoop() {
  Stop();
}

void StepLoop::Start() {
  CHECK(!plan_thread_.joinable(), "a step loop starts once");
  engine_->Start(
      {[this](WorkPointer work) { TakeBack(std::move(work)); }, [this] { OnAvailability(); }});
  plan_thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "plan");
    PlanLoop();
  });
}

void StepLoop::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  plan_wake_.notify_all();
  if (plan_thread_.joinable()) plan_thread_.join();
  engine_->Stop();
}

void StepLoop::Push(std::vector<StepCommand> commands) {
  {
    const std::lock_guard lock(mutex_);
    for (StepCommand& command : commands) inbox_.push_back(std::move(command));
  }
  plan_wake_.notify_one();
}

StepProgress StepLoop::progress() const {
  const bool available = engine_->available();
  const std::lock_guard lock(mutex_);
  StepProgress progress = progress_;
  progress.available = available;
  return progress;
}

std::vector<SurfaceTokens> StepLoop::served() const {
  const std::lock_guard lock(mutex_);
  return served_;
}

PrefixChanges StepLoop::TakeCacheChanges() {
  const std::lock_guard lock(mutex_);
  return std::exchange(cache_changes_, {});
}

// --- the plan thread ---

void StepLoop::PlanLoop() {
  while (AwaitEvents()) {
    for (StepCommand& command : commands_) Apply(std::move(command));
    commands_.clear();
    for (WorkPointer& work : finished_) Finish(std::move(work));
    finished_.clear();
    PlanAhead();
    PublishState();
    PublishForecast();
    HandOverUpdates();
  }
}

bool StepLoop::AwaitEvents() {
  std::unique_lock lock(mutex_);
  const auto event = [this] {
    return stopping_ || engine_changed_ || !inbox_.empty() || !done_.empty();
  };
  if (!event() && batcher_.outstanding_count() == 0) progress_.busy_since_us = 0;
  if (plan_due_us_) {
    const int64_t wait_us = std::min(*plan_due_us_ - clock_.NowUs(), kWaitMostUs);
    if (wait_us > 0) plan_wake_.wait_for(lock, std::chrono::microseconds(wait_us), event);
  } else {
    plan_wake_.wait(lock, event);
  }
  engine_changed_ = false;
  if (progress_.busy_since_us == 0) progress_.busy_since_us = clock_.NowUs();
  commands_.swap(inbox_);
  finished_.swap(done_);
  return !stopping_;
}

void StepLoop::Apply(StepCommand command) {
  if (const auto* cancel = std::get_if<Cancel>(&command)) {
    batcher_.Cancel(cancel->sequence, cancel->attempt);
    return;
  }
  auto& submit = std::get<Submit>(command);
  const SequenceId sequence = submit.sequence;
  const uint32_t attempt = submit.attempt;
  Status status = CheckSampling(submit.sampling, engine_->info().vocab_size);
  if (status.ok()) status = batcher_.Admit(std::move(submit), clock_.NowUs());
  if (!status.ok()) refusals_.push_back(Refusal(sequence, attempt, status));
}

void StepLoop::Finish(WorkPointer work) {
  // Of a state that was lost: the batcher has dropped the plan.
  const bool dropped = work->state_epoch != state_epoch_ || batcher_.outstanding_count() == 0;
  if (!dropped && work->state_lost) {
    StartAgain(work->fault, work->step_us);
  } else if (!dropped) {
    CommitOrFail(*work);
  }
  batcher_.Recycle(std::move(work->plan));
  spares_.push_back(std::move(work));
}

void StepLoop::CommitOrFail(const StepWork& work) {
  predicted_us_.erase(predicted_us_.begin());
  running_since_us_ = clock_.NowUs();
  if (work.fault.ok()) {
    batcher_.Commit(work.plan.number, work.result, work.step_us, running_since_us_);
    metrics_.steps.Increment();
    metrics_.step_time.Observe(static_cast<double>(work.step_us) * 1e-6);
    metrics_.last_step_unix_seconds.Set(static_cast<double>(clock_.UnixUs()) * 1e-6);
  } else {
    LogError("a step failed", {{"plan", work.plan.number}, {"reason", work.fault.ToString()}});
    batcher_.Fail(work.plan.number, work.fault);
  }
}

void StepLoop::StartAgain(const Status& reason, int64_t lost_us) {
  if (batcher_.running_count() > 0) {
    LogWarn("what runs starts again: its state was lost",
            {{"sequences", batcher_.running_count()}, {"reason", reason.ToString()}});
  }
  batcher_.Reset(lost_us);
  lost_ = true;
  predicted_us_.clear();
}

bool StepLoop::EngineTakesPlans() {
  const uint64_t epoch = engine_->state_epoch();
  if (std::exchange(state_epoch_, epoch) != epoch) {
    StartAgain(Unavailable("ranks were lost"), /*lost_us=*/0);
  }
  if (engine_->available()) {
    if (std::exchange(lost_, false)) BlameForOwnFaults();
    return true;
  }
  batcher_.ExpireDeadlines(clock_.NowUs());
  if (const int64_t deadline_us = batcher_.NextDeadlineUs(); deadline_us != 0) {
    plan_due_us_ = deadline_us;
  }
  return false;
}

// Who is to blame is known once the processes are there again.
void StepLoop::BlameForOwnFaults() {
  const uint64_t faults = engine_->own_faults();
  if (std::exchange(own_faults_, faults) == faults) return;
  const size_t suspects = batcher_.Blame();
  LogWarn("a process died by its own fault: what it computed goes on one by one",
          {{"suspects", suspects}});
}

void StepLoop::PlanGroups() {
  while (batcher_.outstanding_count() < engine_->plans_max() && MakePlan()) {
  }
  CHECK(batcher_.outstanding_count() > 0 || batcher_.idle(), "sequences wait and nothing runs");
}

void StepLoop::PlanAhead() {
  plan_due_us_.reset();
  if (!EngineTakesPlans()) return;
  if (engine_->sequence_groups() > 1) return PlanGroups();
  if (batcher_.outstanding_count() == 0) {
    running_since_us_ = clock_.NowUs();
    if (!MakePlan()) {
      // All blocks and slots are free, so whatever waited would have started.
      CHECK(batcher_.idle(), "sequences wait and nothing runs");
      return;
    }
  }
  if (batcher_.outstanding_count() >= engine_->plans_max()) return;
  const int64_t step_us = predicted_us_.front();
  const int64_t lead_us = std::max(kPlanAheadLeastUs, step_us / 2);
  const int64_t due_us = running_since_us_ + step_us - lead_us;
  if (clock_.NowUs() < due_us) {
    plan_due_us_ = due_us;
  } else {
    MakePlan();
  }
}

bool StepLoop::MakePlan() {
  WorkPointer work;
  if (spares_.empty()) {
    work = std::make_unique<StepWork>();
  } else {
    work = std::move(spares_.back());
    spares_.pop_back();
  }
  work->plan = batcher_.Plan(clock_.NowUs());
  if (work->plan.empty()) {
    spares_.push_back(std::move(work));
    return false;
  }
  work->state_epoch = state_epoch_;
  work->state_lost = false;
  work->step_us = 0;
  work->fault = OkStatus();
  FillStarts(work.get());
  CountPlan(work->plan);
  predicted_us_.push_back(work->plan.predicted_us);
  engine_->Submit(std::move(work));
  return true;
}

void StepLoop::FillStarts(StepWork* work) {
  work->starts.clear();
  for (const SequenceSlice& slice : work->plan.slices) {
    const Sequence& sequence = batcher_.InSlot(slice.slot);
    if (std::exchange(runs_[slice.slot], sequence.run) == sequence.run) continue;
    SlotStart& start = work->starts.emplace_back();
    start.slot = slice.slot;
    start.sampling = sequence.record.sampling;
    start.stop = sequence.record.stop;
    start.choice = sequence.record.sequence.choice;
    start.prompt_count = sequence.prompt_count;
    start.token_limit = sequence.token_limit;
    if (NeedsTokens(start.sampling)) start.tokens = sequence.tokens;
  }
}

void StepLoop::CountPlan(const StepPlan& plan) {
  metrics_.step_rows.Observe(plan.row_count());
  metrics_.step_sequences.Observe(static_cast<double>(plan.slices.size()));
  for (const SequenceSlice& slice : plan.slices) {
    if (slice.first_position >= batcher_.InSlot(slice.slot).prefill_end) continue;
    metrics_.prefill_chunk_rows.Observe(slice.row_count);
  }
}

void StepLoop::HandOverUpdates() {
  std::vector<TokenUpdate> updates = batcher_.TakeUpdates();
  for (TokenUpdate& refusal : refusals_) updates.push_back(std::move(refusal));
  refusals_.clear();
  if (!updates.empty()) handler_(std::move(updates));
}

void StepLoop::PublishState() {
  const BatchCounters& now = batcher_.counters();
  const auto add = [](const Counter& counter, uint64_t before, uint64_t after) {
    if (after > before) counter.Increment(static_cast<double>(after - before));
  };
  add(metrics_.prefill_tokens, counted_.prefill_rows, now.prefill_rows);
  add(metrics_.decode_tokens, counted_.tokens, now.tokens);
  add(metrics_.prefix_query_tokens, counted_.prefix_query_tokens, now.prefix_query_tokens);
  add(metrics_.prefix_hit_tokens, counted_.prefix_hit_tokens, now.prefix_hit_tokens);
  add(metrics_.preemptions, counted_.pauses, now.pauses);
  add(metrics_.sequences_finished, counted_.finished, now.finished);
  counted_ = now;
  const auto used = static_cast<double>(batcher_.cache().held_count());
  const auto total = static_cast<double>(batcher_.cache().block_count());
  metrics_.running.Set(batcher_.running_count());
  metrics_.waiting.Set(batcher_.waiting_count());
  metrics_.kv_blocks_used.Set(used);
  metrics_.kv_blocks_total.Set(total);
  metrics_.kv_usage_ratio.Set(total > 0 ? used / total : 0);
  const std::lock_guard lock(mutex_);
  progress_.running = batcher_.running_count();
  progress_.waiting = batcher_.waiting_count();
  progress_.kv_blocks_used = batcher_.cache().held_count();
  progress_.kv_blocks_total = batcher_.cache().block_count();
  // What nobody takes stays with the batcher, which remembers no more than it may.
  if (cache_changes_.list.size() < PrefixCache::kChangesMax) {
    batcher_.TakeCacheChanges(&cache_changes_);
  }
}

// Looks at all sequences and surfaces: not with every step.
void StepLoop::PublishForecast() {
  const int64_t now_us = clock_.NowUs();
  if (batcher_.outstanding_count() > 0 && now_us - forecast_us_ < kForecastUs) return;
  forecast_us_ = now_us;
  const PrefillForecast forecast = batcher_.ForecastPrefill();
  const std::lock_guard lock(mutex_);
  progress_.prefill = forecast;
  // Surfaces are never forgotten: as many as before are the same as before.
  if (served_.size() != batcher_.served().size()) {
    served_.clear();
    for (const auto& [surface, tokens] : batcher_.served()) served_.push_back({surface, tokens});
  }
  auto published = served_.begin();
  for (const auto& [surface, tokens] : batcher_.served()) (published++)->tokens = tokens;
}

// --- the engine's threads ---

void StepLoop::TakeBack(WorkPointer work) {
  {
    const std::lock_guard lock(mutex_);
    const int64_t step_us = work->step_us;
    if (work->fault.ok()) {
      progress_.step_us =
          progress_.steps == 0 ? step_us : progress_.step_us + (step_us - progress_.step_us) / 8;
      ++progress_.steps;
    } else {
      ++(work->state_lost ? progress_.losses : progress_.faults);
    }
    progress_.last_step_end_us = progress_.busy_since_us = clock_.NowUs();
    done_.push_back(std::move(work));
  }
  plan_wake_.notify_one();
}

void StepLoop::OnAvailability() {
  {
    const std::lock_guard lock(mutex_);
    engine_changed_ = true;
  }
  plan_wake_.notify_one();
}

}  // namespace muselet
