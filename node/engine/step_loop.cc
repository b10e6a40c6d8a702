#include "node/engine/step_loop.h"

#include <pthread.h>

#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace muselet {
namespace {

BatchModel BatchModelOf(const ModelInfo& info) {
  BatchModel model;
  model.vocab_size = info.vocab_size;
  model.context_tokens = info.context_tokens;
  model.kv.block_tokens = info.block_tokens;
  for (const KvGroupInfo& group : info.kv_groups) {
    model.kv.groups.push_back({group.block_count, group.window_tokens});
  }
  return model;
}

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
    : model_(std::move(model)),
      clock_(clock),
      metrics_(metrics),
      handler_(std::move(handler)),
      batcher_(options, BatchModelOf(model_->info())),
      sampler_(model_->info().vocab_size),
      slots_(options.sequences_max) {
  PublishState();
}

StepLoop::~StepLoop() {
  Stop();
}

void StepLoop::Start() {
  CHECK(!thread_.joinable(), "a step loop starts once");
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "step");
    Run();
  });
}

void StepLoop::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void StepLoop::Push(std::vector<StepCommand> commands) {
  {
    const std::lock_guard lock(mutex_);
    for (StepCommand& command : commands) inbox_.push_back(std::move(command));
  }
  wake_.notify_one();
}

StepProgress StepLoop::progress() const {
  const std::lock_guard lock(mutex_);
  return progress_;
}

void StepLoop::Run() {
  std::vector<StepCommand> commands;
  bool may_park = true;
  while (TakeCommands(may_park, &commands)) {
    for (StepCommand& command : commands) Apply(std::move(command));
    commands.clear();
    const bool stepped = Step();
    PublishState();
    HandOverUpdates();
    // Without a step there is nothing left to compute: all blocks and slots are free, so whatever
    // waited would have started.
    may_park = !stepped;
  }
}

bool StepLoop::TakeCommands(bool may_park, std::vector<StepCommand>* commands) {
  std::unique_lock lock(mutex_);
  if (may_park && inbox_.empty() && !stopping_) {
    progress_.busy_since_us = 0;
    wake_.wait(lock, [this] { return stopping_ || !inbox_.empty(); });
  }
  commands->swap(inbox_);
  progress_.busy_since_us = clock_.NowUs();
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
  Status status = CheckSampling(submit.sampling, model_->info().vocab_size);
  if (status.ok()) status = batcher_.Admit(std::move(submit), clock_.NowUs());
  if (!status.ok()) refusals_.push_back(Refusal(sequence, attempt, status));
}

bool StepLoop::Step() {
  const int64_t start_us = clock_.NowUs();
  const StepPlan plan = batcher_.Plan(start_us);
  if (plan.empty()) {
    CHECK(batcher_.idle(), "sequences wait and nothing runs");
    return false;
  }
  CountPlan(plan);
  Result<std::span<const float>> logits = model_->Forward(plan);
  if (!logits.ok()) {
    LogError("a step failed", {{"plan", plan.number}, {"reason", logits.status().ToString()}});
    batcher_.Fail(plan.number, logits.status());
    const std::lock_guard lock(mutex_);
    ++progress_.faults;
    return true;
  }
  const StepResult result = Sample(plan, *logits);
  const int64_t end_us = clock_.NowUs();
  batcher_.Commit(plan.number, result, end_us - start_us, end_us);
  CountStep(end_us - start_us);
  return true;
}

StepResult StepLoop::Sample(const StepPlan& plan, std::span<const float> logits) {
  StepResult result;
  result.slices.reserve(plan.slices.size());
  const size_t vocab_size = model_->info().vocab_size;
  for (const SequenceSlice& slice : plan.slices) {
    const size_t size = slice.logits_rows * vocab_size;
    CHECK(size <= logits.size(), "the model gave fewer rows of logits than the plan names");
    result.slices.push_back(SampleSlice(slice, logits.first(size)));
    logits = logits.subspan(size);
  }
  return result;
}

SliceResult StepLoop::SampleSlice(const SequenceSlice& slice, std::span<const float> logits) {
  SliceResult result;
  if (slice.logits_rows == 0) return result;
  const Sequence& sequence = batcher_.InSlot(slice.slot);
  const SamplingParams& params = sequence.record.sampling;
  const size_t vocab_size = model_->info().vocab_size;
  if (sequence.wants_prompt_logprobs()) {
    uint32_t position = slice.first_position + slice.row_count - slice.logits_rows + 1;
    for (uint32_t row = 0; row < slice.logits_rows; ++row, ++position) {
      if (position >= sequence.prompt_count) break;
      sampler_.Logprobs(logits.subspan(row * vocab_size, vocab_size), sequence.tokens[position],
                        static_cast<uint32_t>(params.prompt_logprobs),
                        &result.prompt_logprobs.emplace_back());
    }
  }
  if (!slice.samples) return result;
  SlotState& state = slots_[slice.slot];
  if (state.run != sequence.run) {
    state.run = sequence.run;
    state.counts.Reset(Sampler::UsesCounts(params) ? sequence.token_limit : 0);
  }
  if (Sampler::UsesCounts(params)) state.counts.CatchUp(sequence.tokens, sequence.prompt_count);
  const DrawContext context{params,
                            sequence.record.stop,
                            sequence.record.sequence.choice,
                            sequence.prompt_count,
                            sequence.token_count(),
                            state.counts};
  result.fault = sampler_.Draw(logits.last(vocab_size), context, &result.token);
  result.sampled = result.fault.ok();
  return result;
}

void StepLoop::CountPlan(const StepPlan& plan) {
  metrics_.step_rows.Observe(plan.row_count());
  metrics_.step_sequences.Observe(static_cast<double>(plan.slices.size()));
  for (const SequenceSlice& slice : plan.slices) {
    if (slice.first_position >= batcher_.InSlot(slice.slot).prefill_end) continue;
    metrics_.prefill_chunk_rows.Observe(slice.row_count);
  }
}

void StepLoop::CountStep(int64_t step_us) {
  metrics_.steps.Increment();
  metrics_.step_time.Observe(static_cast<double>(step_us) * 1e-6);
  metrics_.last_step_unix_seconds.Set(static_cast<double>(clock_.UnixUs()) * 1e-6);
  const std::lock_guard lock(mutex_);
  progress_.step_us =
      progress_.steps == 0 ? step_us : progress_.step_us + (step_us - progress_.step_us) / 8;
  ++progress_.steps;
  progress_.last_step_end_us = clock_.NowUs();
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
}

}  // namespace muselet
