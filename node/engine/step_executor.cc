#include "node/engine/step_executor.h"

#include <utility>

#include "base/check.h"

namespace muselet {

bool NeedsTokens(const SamplingParams& params) {
  return Sampler::UsesCounts(params) || params.prompt_logprobs >= 0;
}

StepExecutor::StepExecutor(std::shared_ptr<Model> model, uint32_t slot_count, ExecutorRole role)
    : model_(std::move(model)),
      role_(role),
      sampler_(model_->info().vocab_size),
      slots_(slot_count) {
  drawn_.reserve(slot_count);
}

void StepExecutor::Execute(StepWork* work) {
  for (SlotStart& start : work->starts) Adopt(std::move(start));
  work->starts.clear();
  Resolve(&work->plan);
  const Result<std::span<const float>> logits = model_->Forward(work->plan);
  work->fault = logits.status();
  if (!logits.ok()) return;
  work->result.slices.resize(role_.samples ? work->plan.slices.size() : 0);
  if (role_.samples) Sample(work->plan, *logits, &work->result);
  if (role_.exchange != nullptr) work->fault = ExchangeDrawn(work->plan);
}

// A slice whose draw failed gives what its slot had: its sequence ends, and nothing that the next
// plan computes of it is looked at.
Status StepExecutor::ExchangeDrawn(const StepPlan& plan) {
  drawn_.clear();
  for (const SequenceSlice& slice : plan.slices) {
    if (slice.samples) drawn_.push_back(slots_[slice.slot].last_token);
  }
  if (drawn_.empty()) return OkStatus();
  RETURN_IF_ERROR(role_.exchange->Exchange(drawn_));
  size_t next = 0;
  for (const SequenceSlice& slice : plan.slices) {
    if (slice.samples) slots_[slice.slot].last_token = drawn_[next++];
  }
  return OkStatus();
}

void StepExecutor::Adopt(SlotStart start) {
  Slot& slot = slots_[start.slot];
  const bool counts = Sampler::UsesCounts(start.sampling);
  slot.counts.Reset(counts ? start.token_limit : 0);
  if (counts) start.tokens.reserve(start.token_limit);
  slot.start = std::move(start);
  slot.last_token = 0;
}

// Only the last row of a slice can be ahead of what was known when the plan was made.
void StepExecutor::Resolve(StepPlan* plan) const {
  for (const SequenceSlice& slice : plan->slices) {
    TokenId& token = plan->tokens[slice.row_begin + slice.row_count - 1];
    if (token == kTokenFromEarlierPlan) token = slots_[slice.slot].last_token;
  }
}

void StepExecutor::Sample(const StepPlan& plan, std::span<const float> logits, StepResult* result) {
  const size_t vocab_size = model_->info().vocab_size;
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    const SequenceSlice& slice = plan.slices[i];
    const size_t size = slice.logits_rows * vocab_size;
    CHECK(size <= logits.size(), "the model gave fewer rows of logits than the plan names");
    SampleSlice(slice, logits.first(size), &result->slices[i]);
    logits = logits.subspan(size);
  }
}

void StepExecutor::TakePromptLogprobs(const Slot& slot, const SequenceSlice& slice,
                                      std::span<const float> logits, SliceResult* result) {
  const size_t vocab_size = model_->info().vocab_size;
  uint32_t position = slice.first_position + slice.row_count - slice.logits_rows + 1;
  for (uint32_t row = 0; row < slice.logits_rows; ++row, ++position) {
    if (position >= slot.start.prompt_count) break;
    sampler_.Logprobs(logits.subspan(row * vocab_size, vocab_size), slot.start.tokens[position],
                      static_cast<uint32_t>(slot.start.sampling.prompt_logprobs),
                      &result->prompt_logprobs.emplace_back());
  }
}

void StepExecutor::SampleSlice(const SequenceSlice& slice, std::span<const float> logits,
                               SliceResult* result) {
  result->sampled = false;
  result->fault = OkStatus();
  result->token.logprob = 0;  // the memory is that of another sequence's result
  result->token.top.clear();
  result->prompt_logprobs.clear();
  if (slice.logits_rows == 0) return;
  Slot& slot = slots_[slice.slot];
  const SlotStart& start = slot.start;
  if (start.sampling.prompt_logprobs >= 0) TakePromptLogprobs(slot, slice, logits, result);
  if (!slice.samples) return;
  if (Sampler::UsesCounts(start.sampling)) slot.counts.CatchUp(start.tokens, start.prompt_count);
  const DrawContext context{start.sampling,
                            start.stop,
                            start.choice,
                            start.prompt_count,
                            slice.first_position + slice.row_count,
                            slot.counts};
  result->fault = sampler_.Draw(logits.last(model_->info().vocab_size), context, &result->token);
  result->sampled = result->fault.ok();
  if (!result->sampled) return;
  slot.last_token = result->token.id;
  if (Sampler::UsesCounts(start.sampling)) slot.start.tokens.push_back(slot.last_token);
}

}  // namespace muselet
