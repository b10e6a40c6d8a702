// Batcher: what goes into a step.
#include <algorithm>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

constexpr int64_t kTokenOfWaitingUs = 1000;  // this long in line counts as a token less to go

uint32_t CeilDiv(uint32_t value, uint32_t divisor) {
  return (value + divisor - 1) / divisor;
}

// Orders prompts: smaller goes first.
std::pair<int64_t, uint64_t> PrefillKey(const Sequence& sequence, int64_t now_us) {
  const bool waits = sequence.state == SequenceState::kWaiting;
  const int64_t to_go =
      waits ? sequence.token_count() : int64_t{sequence.prefill_end} - sequence.planned;
  return {to_go - (now_us - sequence.arrived_us) / kTokenOfWaitingUs, sequence.serial};
}

}  // namespace

StepPlan Batcher::Plan(int64_t now_us) {
  ExpireDeadlines(now_us);
  bool work_conserving = false;
  while (true) {
    Draft draft = NewDraft();
    if (FillDraft(draft, now_us, work_conserving)) {
      draft.plan.number = draft.record.number = next_plan_++;
      draft.plan.predicted_us = static_cast<int64_t>(PredictUs(draft.record));
      const bool mixed = draft.record.decodes.rows > 0 && draft.record.prefill.rows > 0;
      mixed_in_a_row_ = mixed ? mixed_in_a_row_ + 1 : 0;
      SettleBatchFloor(draft);
      lost_.clear();
      ++counters_.plans;
      outstanding_.push_back(std::move(draft.record));
      return std::move(draft.plan);
    }
    Recycle(std::move(draft.plan));
    KeepSpare(std::move(draft.record));
    if (!outstanding_.empty()) return {};
    // Nobody of a higher class can go on now: batch work need not wait for them.
    if (!std::exchange(work_conserving, true) && draft.batch_on_floor) continue;
    if (running_count_ == 0) return {};
    // All that run wait for blocks that only they hold: one has to go, protected or not.
    Pause(*CheapestRunning(std::nullopt));
  }
}

// False: there is nothing to compute now.
bool Batcher::FillDraft(Draft& draft, int64_t now_us, bool work_conserving) {
  const uint32_t batch = live_by_class_[static_cast<size_t>(RequestClass::kBatch)];
  draft.batch_on_floor = !work_conserving && batch > 0 && live_.size() > batch;
  draft.batch_may_run = !draft.batch_on_floor || batch_credit_us_ > 0;
  alone_ = FirstSuspect();
  PlanDecodes(draft);
  PlanPrefill(draft, now_us);
  return !draft.plan.empty();
}

Sequence* Batcher::FirstSuspect() const {
  if (suspects_ == 0) return nullptr;
  for (const auto& [serial, sequence] : sequences_) {
    if (sequence->suspect) return sequence.get();
  }
  return nullptr;
}

bool Batcher::LeftOutForFloor(const Draft& draft, const Sequence& sequence) const {
  return draft.batch_on_floor && sequence.record.request_class == RequestClass::kBatch &&
         batch_credit_us_ <= 0;
}

// What it was given is already taken off.
void Batcher::SettleBatchFloor(const Draft& draft) {
  if (!draft.batch_on_floor) return;
  const double most_us = kBatchFloor * static_cast<double>(options_.step_max_us);
  batch_credit_us_ = std::min(batch_credit_us_ + kBatchFloor * PredictUs(draft.record), most_us);
}

Batcher::Draft Batcher::NewDraft() {
  ++drafts_;
  Draft draft;
  if (!spare_plans_.empty()) {
    draft.plan = std::move(spare_plans_.back());
    spare_plans_.pop_back();
    draft.plan.tokens.clear();
    draft.plan.slices.clear();
    draft.plan.block_tables.clear();
  }
  if (!spare_records_.empty()) {
    draft.record = std::move(spare_records_.back());
    spare_records_.pop_back();
    draft.record.decodes = draft.record.prefill = {};
    draft.record.slices.clear();
  }
  return draft;
}

void Batcher::ExpireDeadlines(int64_t now_us) {
  std::vector<Sequence*> expired;
  for (const auto& [serial, sequence] : sequences_) {
    if (sequence->ended || sequence->deadline_us == 0 || sequence->deadline_us > now_us) continue;
    expired.push_back(sequence.get());
  }
  for (Sequence* sequence : expired) End(*sequence, FinishReason::kDeadline, OkStatus());
}

int64_t Batcher::NextDeadlineUs() const {
  int64_t next_us = 0;
  for (const auto& [serial, sequence] : sequences_) {
    if (sequence->ended || sequence->deadline_us == 0) continue;
    if (next_us == 0 || sequence->deadline_us < next_us) next_us = sequence->deadline_us;
  }
  return next_us;
}

bool Batcher::MayTakeRows(const Sequence& sequence) const {
  if (alone_ != nullptr && alone_ != &sequence) return false;
  if (sequence.state != SequenceState::kRunning || sequence.known_count() >= sequence.token_limit) {
    return false;
  }
  if (grouped()) return sequence.planned < sequence.token_count();
  return sequence.plans_out < 2 && sequence.planned < sequence.known_count();
}

// Fills running_ by class, then age; with `rotate`, within a class those first whose surface was
// served least, then (of groups: whatever class and surface) those that waited longest for a row.
void Batcher::ListRunning(bool rotate) {
  running_.clear();
  for (Sequence* sequence : slots_) {
    if (sequence != nullptr) running_.push_back(sequence);
  }
  const auto key = [this, rotate](const Sequence* sequence) {
    const uint64_t turn = rotate ? sequence->last_plan : 0;
    const double served = rotate && !grouped() ? sequence->share->served : 0;
    return std::tuple(grouped() ? turn : 0, sequence->record.request_class, served, turn,
                      sequence->serial);
  };
  std::sort(running_.begin(), running_.end(),
            [&key](const Sequence* a, const Sequence* b) { return key(a) < key(b); });
}

// Plans that are still to be made before all groups compute, the next one included.
uint32_t Batcher::PlansToCome() const {
  const auto outstanding = static_cast<uint32_t>(outstanding_.size());
  return model_.sequence_groups > outstanding ? model_.sequence_groups - outstanding : 1;
}

// Of the decodes in running_, how many the next plan takes.
uint32_t Batcher::DecodeRowsMax(const Draft& draft) const {
  if (!grouped()) return options_.step_tokens_max;
  uint32_t decoding = 0;
  uint32_t free = 0;
  for (const Sequence* sequence : running_) {
    if (sequence->state != SequenceState::kRunning || sequence->prefilling()) continue;
    if (LeftOutForFloor(draft, *sequence)) continue;
    ++decoding;
    if (MayTakeRows(*sequence)) ++free;
  }
  return std::min({options_.step_tokens_max, CeilDiv(decoding, model_.sequence_groups),
                   CeilDiv(free, PlansToCome())});
}

void Batcher::PlanDecodes(Draft& draft) {
  bool left_out = false;
  ListRunning(grouped() || decodes_left_out_);
  const uint32_t rows_max = DecodeRowsMax(draft);
  for (Sequence* sequence : running_) {
    if (!MayTakeRows(*sequence) || sequence->prefilling()) continue;
    const StepLoad load = draft.record.decodes + SliceLoad(sequence->planned, 1);
    const bool fits = draft.plan.row_count() < rows_max &&
                      decode_time_.PredictUs(load) <= static_cast<double>(options_.step_max_us);
    if ((!fits && !draft.plan.empty()) || LeftOutForFloor(draft, *sequence)) {
      left_out = true;
      continue;
    }
    if (!Grow(*sequence, sequence->planned + 1)) continue;
    if (draft.batch_on_floor && sequence->record.request_class == RequestClass::kBatch) {
      batch_credit_us_ -= decode_time_.PredictUs(load) - DecodesUs(draft.record);
    }
    AddSlice(draft, *sequence, 1);
    draft.beside_decodes = true;
  }
  decodes_left_out_ = left_out;
}

double Batcher::DecodesUs(const Outstanding& step) const {
  return step.decodes.rows > 0 ? decode_time_.PredictUs(step.decodes) : 0;
}

double Batcher::PredictUs(const Outstanding& step) const {
  return DecodesUs(step) + (step.prefill.rows > 0 ? PrefillTime(step).PredictUs(step.prefill) : 0);
}

void Batcher::ObserveTime(const Outstanding& step, int64_t step_us) {
  if (step_us <= 0) return;
  if (step.prefill.rows == 0) return decode_time_.Observe(step.decodes, step_us);
  if (step.decodes.rows == 0) return prefill_time_.Observe(step.prefill, step_us);
  const auto added_us = step_us - static_cast<int64_t>(DecodesUs(step));
  added_time_.Observe(step.prefill, std::max<int64_t>(added_us, 1));
}

// Beside decodes that were measured what they take longer is laid to prefill: there will be less
// of it, and the next plan without it measures them.
void Batcher::ObserveLoss(const Outstanding& step, int64_t lost_us) {
  if (lost_us <= 0) return;
  if (step.prefill.rows == 0) return decode_time_.Refute(step.decodes, lost_us);
  if (step.decodes.rows == 0) return prefill_time_.Refute(step.prefill, lost_us);
  added_time_.Refute(step.prefill, lost_us - static_cast<int64_t>(DecodesUs(step)));
}

// What the decodes take that the plan keeps waiting: its own, or those of another group.
double Batcher::DecodesBesideUs(const Draft& draft) const {
  double decodes_us = DecodesUs(draft.record);
  if (draft.record.decodes.rows > 0) return decodes_us;
  for (const Outstanding& other : outstanding_) {
    decodes_us = std::max(decodes_us, DecodesUs(other));
  }
  return decodes_us;
}

// What a step may take in all beside decodes that alone take `decodes_us`.
int64_t Batcher::PrefillLimitUs(double decodes_us) const {
  uint32_t awaiting = 0;
  const auto count = [&awaiting](const Sequence& sequence) {
    if (sequence.record.request_class != RequestClass::kBatch) ++awaiting;
  };
  for (const auto& [serial, sequence] : waiting_) count(*sequence);
  for (const Sequence* sequence : running_) {
    if (sequence->state == SequenceState::kRunning && sequence->prefilling()) count(*sequence);
  }
  const double stretch = 1 + (options_.step_stretch - 1) * std::max(1U, awaiting);
  const double target_us =
      std::max(static_cast<double>(options_.step_target_us), decodes_us / (1 - kPrefillShareMin));
  // Rows are few where decodes are: to the nearest row, not down.
  const double row_us = added_time_.PredictUs({2, 0}) - added_time_.PredictUs({1, 0});
  return static_cast<int64_t>(
      std::min(stretch * decodes_us + std::max(row_us, 0.0) / 2, target_us));
}

PrefillForecast Batcher::ForecastPrefill() const {
  PrefillForecast forecast;
  for (const auto& [serial, sequence] : waiting_) forecast.tokens += sequence->token_count();
  for (const Sequence* sequence : slots_) {
    if (sequence == nullptr || sequence->state != SequenceState::kRunning) continue;
    forecast.tokens += sequence->prefill_end - std::min(sequence->computed, sequence->prefill_end);
  }
  const StepTimeModel& time = prefill_time_.measured() ? prefill_time_ : added_time_;
  if (!time.measured()) return forecast;
  const uint32_t row_max = std::min(options_.prefill_chunk_max, options_.step_tokens_max);
  const auto limit_us = static_cast<double>(options_.step_max_us);
  const uint32_t rows = std::max(1U, time.RowsWithin(limit_us, {}, 0, row_max));
  forecast.token_us = time.PredictUs(SliceLoad(0, rows)) / rows;
  return forecast;
}

// How much prefill the next plan takes, so that the other groups get as much.
uint32_t Batcher::PrefillRowsMax() const {
  if (!grouped()) return options_.step_tokens_max;
  uint64_t rows = 0;
  for (const auto& [serial, sequence] : waiting_) rows += sequence->token_count();
  for (const Sequence* sequence : running_) {
    if (sequence->prefilling()) rows += sequence->prefill_end - sequence->planned;
  }
  const uint64_t share = (rows + PlansToCome() - 1) / PlansToCome();
  return static_cast<uint32_t>(std::clamp<uint64_t>(
      share, std::min(kGroupPrefillRowsMin, options_.step_tokens_max), options_.step_tokens_max));
}

void Batcher::PlanPrefill(Draft& draft, int64_t now_us) {
  if (draft.record.decodes.rows > 0 && mixed_in_a_row_ >= kMixedInARowMax) {
    mixed_in_a_row_ = 0;
    return;
  }
  ListRunning(/*rotate=*/false);
  draft.prefill_rows_max = PrefillRowsMax();
  if (grouped()) {
    draft.beside_decodes = draft.beside_decodes ||
                           std::any_of(outstanding_.begin(), outstanding_.end(),
                                       [](const auto& other) { return other.decodes.rows > 0; });
  }
  if (draft.beside_decodes) draft.prefill_limit_us = PrefillLimitUs(DecodesBesideUs(draft));
  bool blocked = false;  // a more important sequence waits for room: nobody may take it instead
  PlanPrefillOf(draft, RequestClass::kRealtime, now_us, blocked);
  PlanPrefillOf(draft, RequestClass::kInteractive, now_us, blocked);
  PlanBatchPrefill(draft, now_us, blocked);
}

void Batcher::PlanBatchPrefill(Draft& draft, int64_t now_us, bool& blocked) {
  if (!draft.batch_on_floor) return PlanPrefillOf(draft, RequestClass::kBatch, now_us, blocked);
  if (batch_credit_us_ <= 0) return;
  const double before_us = PredictUs(draft.record);
  const uint32_t rows_before = draft.prefill_rows;
  draft.batch_limit_us = before_us + std::max(batch_credit_us_, kBatchFloorInOnePlan * before_us);
  PlanPrefillOf(draft, RequestClass::kBatch, now_us, blocked);
  draft.batch_limit_us = 0;
  if (draft.prefill_rows > rows_before) batch_credit_us_ -= PredictUs(draft.record) - before_us;
}

void Batcher::PlanPrefillOf(Draft& draft, RequestClass request_class, int64_t now_us,
                            bool& blocked) {
  prefilling_.clear();
  deferred_.clear();
  for (Sequence* sequence : running_) {
    if (sequence->record.request_class != request_class || !sequence->prefilling()) continue;
    prefilling_.push_back(sequence);
  }
  const auto sooner = [now_us](const Sequence* a, const Sequence* b) {
    return PrefillKey(*a, now_us) < PrefillKey(*b, now_us);
  };
  std::sort(prefilling_.begin(), prefilling_.end(), sooner);
  auto started = prefilling_.begin();
  Sequence* waiting = NextToStart(request_class, now_us, blocked);
  while (true) {
    if (started != prefilling_.end() && (waiting == nullptr || sooner(*started, waiting))) {
      const uint64_t pauses = counters_.pauses;
      PlanChunk(draft, **started++);
      if (counters_.pauses != pauses) waiting = NextToStart(request_class, now_us, blocked);
      continue;
    }
    if (waiting == nullptr || RowsLeft(draft, *waiting, 1) == 0) return;
    switch (TryStart(*waiting)) {
      case StartResult::kStarted:
        PlanChunk(draft, *waiting);
        break;
      case StartResult::kDeferred:
        deferred_.push_back(waiting);
        break;
      case StartResult::kNoRoom:
        blocked = true;
        break;
    }
    waiting = NextToStart(request_class, now_us, blocked);
  }
}

// Null, and `blocked`, if the next one was paused for this very draft.
Sequence* Batcher::NextToStart(RequestClass request_class, int64_t now_us, bool& blocked) const {
  if (blocked) return nullptr;
  Sequence* next = NextWaiting(request_class, now_us);
  blocked = next != nullptr && next->paused_in_draft == drafts_;
  return blocked ? nullptr : next;
}

Sequence* Batcher::NextWaiting(RequestClass request_class, int64_t now_us) const {
  const auto key = [now_us](const Sequence& sequence) {
    const bool never_ran = sequence.pauses == 0 && !sequence.starts_again;
    return std::tuple(never_ran, sequence.share->served, PrefillKey(sequence, now_us));
  };
  Sequence* best = nullptr;
  for (const auto& [serial, sequence] : waiting_) {
    if (sequence->record.request_class != request_class) continue;
    if (alone_ != nullptr && alone_ != sequence) continue;
    if (std::find(deferred_.begin(), deferred_.end(), sequence) != deferred_.end()) continue;
    if (best == nullptr || key(*sequence) < key(*best)) best = sequence;
  }
  return best;
}

bool Batcher::PlanChunk(Draft& draft, Sequence& sequence) {
  if (!MayTakeRows(sequence)) return false;
  uint32_t row_max = std::min(sequence.prefill_end - sequence.planned, options_.prefill_chunk_max);
  if (sequence.wants_prompt_logprobs()) {
    row_max = std::min(row_max, kPromptLogprobRowsMax - draft.prompt_logprob_rows);
    if (row_max == 0) return false;
  }
  const uint32_t rows = RowsLeft(draft, sequence, row_max);
  if (rows == 0) return false;
  const uint32_t end = sequence.planned + rows;
  const bool behind = grouped() && sequence.plans_out > 0;
  if (!(behind ? AllocateUpTo(sequence, end, Groups::kAll) : Grow(sequence, end))) return false;
  AddSlice(draft, sequence, rows);
  draft.prefill_rows += rows;
  if (draft.batch_limit_us > 0) draft.batch_rows += rows;
  return true;
}

// How many rows of the sequence, at most `row_max`, the step still takes.
uint32_t Batcher::RowsLeft(const Draft& draft, const Sequence& sequence, uint32_t row_max) const {
  // Of the rows, too, higher classes leave batch work its part when it is its turn.
  const bool for_batch = draft.batch_limit_us > 0 || !draft.batch_on_floor;
  const uint32_t reserved = for_batch || !draft.batch_may_run
                                ? 0
                                : static_cast<uint32_t>(kBatchFloor * draft.prefill_rows_max) + 1;
  const auto less = [](uint32_t a, uint32_t b) { return a - std::min(a, b); };
  row_max = std::min({row_max, less(options_.step_tokens_max, draft.plan.row_count() + reserved),
                      less(draft.prefill_rows_max, draft.prefill_rows + reserved)});
  const auto within = [&](int64_t limit_us, uint32_t rows) {
    return PrefillTime(draft.record)
        .RowsWithin(static_cast<double>(limit_us) - DecodesUs(draft.record), draft.record.prefill,
                    sequence.planned, rows);
  };
  const int64_t guess_factor = prefill_measured_ ? 1 : kGuessFactor;
  uint32_t rows = within(options_.step_max_us / guess_factor, row_max);
  if (draft.batch_limit_us > 0) {
    const uint32_t assured = draft.batch_rows == 0 ? 1 : 0;
    const auto limit_us = static_cast<int64_t>(draft.batch_limit_us);
    rows = std::min(rows, std::max(within(limit_us, row_max), assured));
  } else if (draft.beside_decodes) {
    const uint32_t assured = draft.prefill_rows == 0 ? 1 : 0;
    rows = std::min(rows, std::max(within(draft.prefill_limit_us, row_max), assured));
  }
  if (rows == 0 && draft.plan.empty()) rows = std::min(row_max, 1U);
  return rows;
}

void Batcher::AddSlice(Draft& draft, Sequence& sequence, uint32_t row_count) {
  StepPlan& plan = draft.plan;
  SequenceSlice slice;
  slice.slot = sequence.slot;
  slice.first_position = sequence.planned;
  slice.row_begin = plan.row_count();
  slice.row_count = row_count;
  const uint32_t end = sequence.planned + row_count;
  for (uint32_t position = sequence.planned; position < end; ++position) {
    plan.tokens.push_back(position < sequence.token_count() ? sequence.tokens[position]
                                                            : kTokenFromEarlierPlan);
  }
  slice.samples = end == sequence.known_count();
  slice.logits_rows = slice.samples ? 1 : 0;
  if (sequence.wants_prompt_logprobs() && slice.first_position + 1 < sequence.prompt_count) {
    slice.logits_rows = row_count;
    draft.prompt_logprob_rows += row_count;
  }
  const uint32_t block_tokens = model_.kv.block_tokens;
  const uint32_t block_count = (end + block_tokens - 1) / block_tokens;
  for (const std::vector<BlockId>& table : sequence.tables) {
    slice.table_begin.push_back(static_cast<uint32_t>(plan.block_tables.size()));
    slice.table_count.push_back(block_count);
    for (uint32_t i = 0; i < block_count; ++i) {
      plan.block_tables.push_back(table[i] == kNoBlock ? 0 : table[i]);
    }
  }
  const StepLoad load = SliceLoad(slice.first_position, row_count);
  StepLoad& part = sequence.prefilling() ? draft.record.prefill : draft.record.decodes;
  part = part + load;
  draft.record.slices.push_back({slice.slot, slice.first_position, row_count, slice.logits_rows,
                                 slice.samples, sequence.prefilling()});
  sequence.planned = end;
  sequence.last_plan = next_plan_;
  ++sequence.plans_out;
  if (slice.samples) ++sequence.tokens_pending;
  plan.slices.push_back(std::move(slice));
}

}  // namespace muselet
