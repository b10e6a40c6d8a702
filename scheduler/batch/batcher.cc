#include "scheduler/batch/batcher.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"

namespace muselet {
namespace {

// The longest sequence that the memory holds when it is alone. A window group that has room for a
// window and a chunk holds any length.
uint32_t ContextThatFits(const BatchModel& model, const PrefixCache& cache, uint32_t chunk_max) {
  uint64_t tokens = model.context_tokens;
  for (uint32_t group = 0; group < cache.group_count(); ++group) {
    const uint32_t block_count = model.kv.groups[group].block_count;
    if (block_count >= cache.BlocksInUseMax(group, chunk_max)) continue;
    tokens = std::min(tokens, uint64_t{block_count} * model.kv.block_tokens);
  }
  return static_cast<uint32_t>(tokens);
}

bool IsEndToken(const Submit& record, TokenId token) {
  const auto& ends = record.stop.end_tokens;
  return std::find(ends.begin(), ends.end(), token) != ends.end();
}

}  // namespace

Batcher::Batcher(const BatchOptions& options, const BatchModel& model)
    : options_(options),
      model_(model),
      cache_(model.kv, options.prefix_cache && model.kv.block_tokens % kHashBlockTokens == 0),
      context_tokens_(ContextThatFits(model, cache_, options.prefill_chunk_max)),
      slots_(options.sequences_max, nullptr) {
  running_.reserve(options.sequences_max);
  CHECK(options.sequences_max > 0 && options.step_tokens_max > 0 && options.prefill_chunk_max > 0,
        "a step needs room for a sequence and a row");
  for (SequenceSlot slot = options.sequences_max; slot-- > 0;) free_slots_.push_back(slot);
}

Status Batcher::CheckRecord(const Submit& record) const {
  if (record.prompt.empty())
    return InvalidArgument("prompt: is empty; at least one token is needed");
  const uint64_t count = record.prompt.size() + record.generated.size();
  if (record.prompt.size() >= context_tokens_ || count > context_tokens_) {
    return InvalidArgument("prompt: has " + std::to_string(record.prompt.size()) +
                           " tokens; the context has " + std::to_string(context_tokens_) +
                           " and the answer needs at least one");
  }
  if (!(record.share >= kShareMin && record.share <= kShareMax)) {
    return InvalidArgument("share: must be from 0.000001 to 1000000");
  }
  if (record.stop.max_tokens == 0) return InvalidArgument("max_tokens: must be at least 1");
  const auto in_vocabulary = [this](TokenId token) {
    return token >= 0 && static_cast<uint32_t>(token) < model_.vocab_size;
  };
  for (const auto* tokens : {&record.prompt, &record.generated}) {
    for (const TokenId token : *tokens) {
      if (in_vocabulary(token)) continue;
      return InvalidArgument("prompt: token id " + std::to_string(token) +
                             " is outside the vocabulary of " + std::to_string(model_.vocab_size));
    }
  }
  return OkStatus();
}

// Whether the sequence computes just what `record` asks for, and all of it can be said again.
bool Batcher::MayTakeOver(const Sequence& sequence, const Submit& record) {
  const Submit& mine = sequence.record;
  const bool same = record.surface == mine.surface && record.request_class == mine.request_class &&
                    record.cache_salt == mine.cache_salt && record.sampling == mine.sampling &&
                    record.stop == mine.stop && record.prompt.size() == sequence.prompt_count &&
                    record.generated.size() <= sequence.generated_count();
  if (!same) return false;
  const bool wants_logprobs = record.sampling.logprobs >= 0;
  if (wants_logprobs && record.generated.size() < sequence.sampled_from) return false;
  // Those of the prompt are said once.
  const bool wants_prompt_logprobs =
      record.sampling.prompt_logprobs >= 0 && record.generated.empty();
  if (wants_prompt_logprobs && (sequence.first_update_sent || !mine.generated.empty())) {
    return false;
  }
  const auto prompt_end = sequence.tokens.begin() + sequence.prompt_count;
  return std::equal(record.prompt.begin(), record.prompt.end(), sequence.tokens.begin()) &&
         std::equal(record.generated.begin(), record.generated.end(), prompt_end);
}

void Batcher::TakeOver(Sequence& sequence, Submit record, int64_t now_us) {
  const auto known = static_cast<uint32_t>(record.generated.size());
  sequence.record.attempt = record.attempt;
  sequence.record.generated = std::move(record.generated);
  sequence.deadline_us = record.timeout_us > 0 ? now_us + record.timeout_us : 0;
  sequence.first_update_sent = false;
  std::vector<SampledToken> again;
  for (uint32_t i = known; i < sequence.generated_count(); ++i) {
    if (record.sampling.logprobs >= 0) {
      again.push_back(sequence.sampled[i - sequence.sampled_from]);
    } else {
      again.push_back({sequence.tokens[sequence.prompt_count + i], 0, {}});
    }
  }
  if (!again.empty()) updates_.push_back(MakeUpdate(sequence, std::move(again)));
}

Status Batcher::Admit(Submit record, int64_t now_us) {
  if (const auto found = live_.find(record.sequence); found != live_.end()) {
    if (record.attempt <= found->second->record.attempt) return OkStatus();
    if (MayTakeOver(*found->second, record)) {
      TakeOver(*found->second, std::move(record), now_us);
      return OkStatus();
    }
    End(*found->second, FinishReason::kCancelled, OkStatus());
  }
  RETURN_IF_ERROR(CheckRecord(record));
  if (waiting_.size() >= options_.waiting_max) {
    return ResourceExhausted("the replica's line is full (" + std::to_string(options_.waiting_max) +
                             " sequences wait); try again later");
  }
  auto owned = std::make_unique<Sequence>();
  Sequence& sequence = *owned;
  sequence.serial = next_serial_++;
  sequence.prompt_count = static_cast<uint32_t>(record.prompt.size());
  sequence.token_limit = static_cast<uint32_t>(std::min<uint64_t>(
      uint64_t{sequence.prompt_count} + record.stop.max_tokens, context_tokens_));
  sequence.arrived_us = now_us;
  sequence.deadline_us = record.timeout_us > 0 ? now_us + record.timeout_us : 0;
  sequence.tokens = std::move(record.prompt);
  sequence.tokens.insert(sequence.tokens.end(), record.generated.begin(), record.generated.end());
  sequence.sampled_from = static_cast<uint32_t>(record.generated.size());
  sequence.record = std::move(record);
  sequence.record.prompt.clear();
  const std::string& surface = sequence.record.surface;
  const bool counted_apart = served_.size() < kSurfacesMax || served_.contains(surface);
  sequence.served = &served_[counted_apart ? surface : ""];
  sequences_.emplace(sequence.serial, std::move(owned));
  live_[sequence.record.sequence] = &sequence;
  waiting_.emplace(sequence.serial, &sequence);
  sequence.share = fair_share(sequence.record.request_class).Enter(surface, sequence.record.share);
  ++live_by_class_[static_cast<size_t>(sequence.record.request_class)];
  ReportAndEndIfComplete(sequence, {});
  return OkStatus();
}

void Batcher::Cancel(const SequenceId& sequence, uint32_t attempt) {
  const auto found = live_.find(sequence);
  if (found == live_.end() || found->second->record.attempt > attempt) return;
  End(*found->second, FinishReason::kCancelled, OkStatus());
}

TokenUpdate Batcher::MakeUpdate(Sequence& sequence, std::vector<SampledToken> tokens) const {
  TokenUpdate update;
  update.sequence = sequence.record.sequence;
  update.attempt = sequence.record.attempt;
  update.first_index = sequence.generated_count() - static_cast<uint32_t>(tokens.size());
  update.tokens = std::move(tokens);
  if (!sequence.first_update_sent && !update.tokens.empty()) {
    sequence.first_update_sent = true;
    update.cached_prompt_tokens = sequence.cached_prompt_tokens;
    update.prompt_logprobs = std::move(sequence.prompt_logprobs);
  }
  return update;
}

// Reports `tokens`, the newest of the sequence, and ends it if they (or, at admission, the tokens
// of an earlier attempt) completed it.
bool Batcher::ReportAndEndIfComplete(Sequence& sequence, std::vector<SampledToken> tokens) {
  const uint32_t generated = sequence.generated_count();
  TokenUpdate update = MakeUpdate(sequence, std::move(tokens));
  if (generated > sequence.record.stop.min_tokens &&
      IsEndToken(sequence.record, sequence.tokens.back())) {
    update.finish = FinishReason::kStop;
  } else if (sequence.token_count() >= sequence.token_limit) {
    update.finish = FinishReason::kLength;
  } else if (update.tokens.empty()) {
    return false;
  }
  const bool complete = update.finish != FinishReason::kNone;
  updates_.push_back(std::move(update));
  if (complete) Retire(sequence);
  return complete;
}

void Batcher::End(Sequence& sequence, FinishReason reason, const Status& fault) {
  TokenUpdate update = MakeUpdate(sequence, {});
  update.finish = reason;
  update.error_code = fault.code();
  update.error = fault.message();
  updates_.push_back(std::move(update));
  Retire(sequence);
}

// Nothing more will be said about the sequence; destroys it unless outstanding plans name it.
void Batcher::Retire(Sequence& sequence) {
  ++counters_.finished;
  --live_by_class_[static_cast<size_t>(sequence.record.request_class)];
  if (std::exchange(sequence.suspect, false)) --suspects_;
  live_.erase(sequence.record.sequence);
  sequence.ended = true;
  if (sequence.state == SequenceState::kWaiting) {
    Erase(sequence);
    return;
  }
  sequence.state = SequenceState::kLeaving;
  SetComputing(sequence, false);
  SettleLeaving(sequence);
}

// Gives slot and blocks back once no outstanding plan names the sequence.
void Batcher::SettleLeaving(Sequence& sequence) {
  if (sequence.state != SequenceState::kLeaving || sequence.plans_out > 0) return;
  LeaveSlot(sequence);
  if (sequence.ended) {
    Erase(sequence);
  } else {
    ReturnToWaiting(sequence);
  }
}

Batcher::Outstanding Batcher::TakeOldest(uint64_t plan_number) {
  CHECK(!outstanding_.empty() && outstanding_.front().number == plan_number, "plan ", plan_number,
        " is not the oldest outstanding one");
  Outstanding record = std::move(outstanding_.front());
  outstanding_.pop_front();
  return record;
}

void Batcher::Recycle(StepPlan plan) {
  if (spare_plans_.size() < kSparesMax) spare_plans_.push_back(std::move(plan));
}

void Batcher::KeepSpare(Outstanding record) {
  if (spare_records_.size() < kSparesMax) spare_records_.push_back(std::move(record));
}

void Batcher::TakePromptLogprobs(Sequence& sequence, const Outstanding::Slice& slice,
                                 const SliceResult& result) {
  if (!sequence.wants_prompt_logprobs()) return;
  // Entry i belongs to the token after the slice's i-th row with logits; after a pause some are
  // there already.
  const uint32_t first = slice.first_position + slice.row_count - slice.logits_rows + 1;
  for (uint32_t i = 0; i < result.prompt_logprobs.size(); ++i) {
    if (first + i != sequence.prompt_logprobs.size() + 1) continue;
    sequence.prompt_logprobs.push_back(result.prompt_logprobs[i]);
  }
}

void Batcher::CountServed(Sequence& sequence, const Outstanding::Slice& slice) {
  const uint32_t end = slice.first_position + slice.row_count + (slice.samples ? 1 : 0);
  const uint32_t begin = std::max(slice.first_position, sequence.served_until);
  if (end <= begin) return;
  *sequence.served += end - begin;
  sequence.served_until = end;
}

void Batcher::CommitSlice(const Outstanding::Slice& slice, const SliceResult& result) {
  Sequence& sequence = *slots_[slice.slot];
  --sequence.plans_out;
  if (slice.samples) --sequence.tokens_pending;
  if (slice.prefill) counters_.prefill_rows += slice.row_count;
  if (sequence.ended) {
    SettleLeaving(sequence);
    return;
  }
  if (!result.fault.ok()) {
    End(sequence, FinishReason::kError, result.fault);
    return;
  }
  sequence.computed = slice.first_position + slice.row_count;
  CountServed(sequence, slice);
  if (sequence.suspect && sequence.computed >= sequence.suspect_until) {
    sequence.suspect = false;
    --suspects_;
  }
  RegisterBlocks(sequence);
  TakePromptLogprobs(sequence, slice, result);
  if (slice.samples) {
    CHECK(result.sampled, "plan's slice for slot ", slice.slot, " came back without its token");
    sequence.tokens.push_back(result.token.id);
    ++counters_.tokens;
    if (sequence.record.sampling.logprobs >= 0) sequence.sampled.push_back(result.token);
    sequence.share->Charge(1);
    if (ReportAndEndIfComplete(sequence, {result.token})) return;
  }
  ReleasePassedBlocks(sequence);
  SettleLeaving(sequence);
}

void Batcher::Commit(uint64_t plan_number, const StepResult& result, int64_t step_us,
                     int64_t /*now_us*/) {
  Outstanding record = TakeOldest(plan_number);
  CHECK(result.slices.size() == record.slices.size(), "plan ", plan_number, " has ",
        record.slices.size(), " slices, its result ", result.slices.size());
  ObserveTime(record, step_us);
  prefill_measured_ = prefill_measured_ || record.prefill.rows > 0;
  for (size_t i = 0; i < record.slices.size(); ++i) {
    CommitSlice(record.slices[i], result.slices[i]);
  }
  KeepSpare(std::move(record));
}

void Batcher::Fail(uint64_t plan_number, const Status& fault) {
  Outstanding record = TakeOldest(plan_number);
  for (const Outstanding::Slice& slice : record.slices) {
    Sequence& sequence = *slots_[slice.slot];
    --sequence.plans_out;
    if (slice.samples) --sequence.tokens_pending;
    if (sequence.ended) {
      SettleLeaving(sequence);
    } else {
      End(sequence, FinishReason::kError, fault);
    }
  }
  KeepSpare(std::move(record));
}

void Batcher::Reset(int64_t lost_us) {
  if (!outstanding_.empty()) ObserveLoss(outstanding_.front(), lost_us);
  for (const Outstanding& step : outstanding_) {
    for (const Outstanding::Slice& slice : step.slices) {
      const Sequence& sequence = *slots_[slice.slot];
      if (!sequence.ended) lost_.push_back(sequence.record.sequence);
    }
  }
  for (; !outstanding_.empty(); outstanding_.pop_front()) {
    KeepSpare(std::move(outstanding_.front()));
  }
  computing_.clear();
  decodes_left_out_ = false;
  for (Sequence* sequence : slots_) {
    if (sequence == nullptr) continue;
    sequence->plans_out = sequence->tokens_pending = 0;
    LeaveSlot(*sequence);
    if (sequence->ended) {
      Erase(*sequence);
    } else {
      sequence->starts_again = true;
      ReturnToWaiting(*sequence);
    }
  }
  cache_.Clear();
}

size_t Batcher::Blame() {
  std::sort(lost_.begin(), lost_.end());
  lost_.erase(std::unique(lost_.begin(), lost_.end()), lost_.end());
  for (const SequenceId& id : std::exchange(lost_, {})) {
    const auto found = live_.find(id);
    if (found == live_.end()) continue;
    Sequence& sequence = *found->second;
    if (sequence.suspect) {
      End(sequence, FinishReason::kError,
          Internal("request " + id.request.ToString() +
                   " ended a process that computed it twice, the second time alone: it is not "
                   "computed again"));
      continue;
    }
    sequence.suspect = true;
    sequence.suspect_until = sequence.token_count() + 1;
    ++suspects_;
  }
  return suspects_;
}

std::vector<TokenUpdate> Batcher::TakeUpdates() {
  return std::exchange(updates_, {});
}

const Sequence& Batcher::InSlot(SequenceSlot slot) const {
  CHECK(slot < slots_.size() && slots_[slot] != nullptr, "nothing computes in slot ", slot);
  return *slots_[slot];
}

std::vector<SequenceId> Batcher::ActiveSequences() const {
  std::vector<SequenceId> active;
  active.reserve(live_.size());
  for (const auto& [serial, sequence] : sequences_) {
    if (!sequence->ended) active.push_back(sequence->record.sequence);
  }
  return active;
}

}  // namespace muselet
