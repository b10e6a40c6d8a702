// Batcher: what goes into a step.
#include <algorithm>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

constexpr std::array<RequestClass, 3> kClasses = {RequestClass::kRealtime,
                                                  RequestClass::kInteractive, RequestClass::kBatch};

}  // namespace

StepPlan Batcher::Plan(int64_t now_us) {
  ExpireDeadlines(now_us);
  while (true) {
    Draft draft;
    PlanDecodes(draft);
    PlanPrefill(draft);
    if (!draft.plan.empty()) {
      draft.plan.number = draft.record.number = next_plan_++;
      ++counters_.plans;
      outstanding_.push_back(std::move(draft.record));
      return std::move(draft.plan);
    }
    if (!outstanding_.empty() || running_count_ == 0) return {};
    // All that run wait for blocks that only they hold: one has to go, protected or not.
    Pause(*CheapestRunning(/*unprotected_only=*/false));
  }
}

void Batcher::ExpireDeadlines(int64_t now_us) {
  std::vector<Sequence*> expired;
  for (const auto& [serial, sequence] : sequences_) {
    if (sequence->ended || sequence->deadline_us == 0 || sequence->deadline_us > now_us) continue;
    expired.push_back(sequence.get());
  }
  for (Sequence* sequence : expired) End(*sequence, FinishReason::kDeadline, OkStatus());
}

bool Batcher::MayTakeRows(const Sequence& sequence) {
  return sequence.state == SequenceState::kRunning && sequence.plans_out < 2 &&
         sequence.planned < sequence.known_count() && sequence.known_count() < sequence.token_limit;
}

// By class, then age; with `rotate`, within a class those first that waited longest for a row.
std::vector<Sequence*> Batcher::RunningInOrder(bool rotate) const {
  std::vector<Sequence*> running;
  for (Sequence* sequence : slots_) {
    if (sequence != nullptr) running.push_back(sequence);
  }
  const auto key = [rotate](const Sequence* sequence) {
    return std::tuple(sequence->record.request_class, rotate ? sequence->last_plan : 0,
                      sequence->serial);
  };
  std::sort(running.begin(), running.end(),
            [&key](const Sequence* a, const Sequence* b) { return key(a) < key(b); });
  return running;
}

void Batcher::PlanDecodes(Draft& draft) {
  bool left_out = false;
  for (Sequence* sequence : RunningInOrder(decodes_left_out_)) {
    if (!MayTakeRows(*sequence) || sequence->prefilling()) continue;
    const StepLoad load = draft.record.load + SliceLoad(sequence->planned, 1);
    const bool fits = draft.plan.row_count() < options_.step_tokens_max &&
                      step_time_.PredictUs(load) <= static_cast<double>(options_.step_max_us);
    if (!fits && !draft.plan.empty()) {
      left_out = true;
      continue;
    }
    if (!Grow(*sequence, sequence->planned + 1)) continue;
    AddSlice(draft, *sequence, 1);
    draft.has_decodes = true;
  }
  decodes_left_out_ = left_out;
}

void Batcher::PlanPrefill(Draft& draft) {
  const std::vector<Sequence*> running = RunningInOrder(/*rotate=*/false);
  bool blocked = false;  // a more important sequence waits for room: nobody may take it instead
  for (const RequestClass request_class : kClasses) {
    for (Sequence* sequence : running) {
      if (sequence->record.request_class != request_class || !sequence->prefilling()) continue;
      PlanChunk(draft, *sequence);
    }
    if (!blocked) PlanStarts(draft, request_class, blocked);
  }
}

void Batcher::PlanStarts(Draft& draft, RequestClass request_class, bool& blocked) {
  std::vector<uint64_t> deferred;
  while (Sequence* sequence = NextWaiting(request_class, deferred)) {
    if (RowsLeft(draft, *sequence, 1) == 0) return;
    switch (TryStart(*sequence)) {
      case StartResult::kStarted:
        PlanChunk(draft, *sequence);
        break;
      case StartResult::kDeferred:
        deferred.push_back(sequence->serial);
        break;
      case StartResult::kNoRoom:
        blocked = true;
        return;
    }
  }
}

Sequence* Batcher::NextWaiting(RequestClass request_class, const std::vector<uint64_t>& deferred) {
  const FairShare& share = fair_share(request_class);
  const auto key = [&share](const Sequence& sequence) {
    return std::tuple(sequence.pauses == 0, share.Served(sequence.record.surface), sequence.serial);
  };
  Sequence* best = nullptr;
  for (const auto& [serial, sequence] : waiting_) {
    if (sequence->record.request_class != request_class) continue;
    if (std::find(deferred.begin(), deferred.end(), serial) != deferred.end()) continue;
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
  if (rows == 0 || !Grow(sequence, sequence.planned + rows)) return false;
  AddSlice(draft, sequence, rows);
  draft.prefill_rows += rows;
  return true;
}

// How many rows of the sequence, at most `row_max`, the step still takes.
uint32_t Batcher::RowsLeft(const Draft& draft, const Sequence& sequence, uint32_t row_max) const {
  row_max = std::min(row_max, options_.step_tokens_max - draft.plan.row_count());
  const auto within = [&](int64_t limit_us, uint32_t rows) {
    return step_time_.RowsWithin(static_cast<double>(limit_us), draft.record.load, sequence.planned,
                                 rows);
  };
  uint32_t rows = within(options_.step_max_us, row_max);
  if (draft.has_decodes) {
    const uint32_t assured = kPrefillRowsMin - std::min(kPrefillRowsMin, draft.prefill_rows);
    rows = std::min(rows, std::max(within(options_.step_target_us, row_max), assured));
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
  draft.record.load = draft.record.load + load;
  draft.record.slices.push_back({slice.slot, slice.first_position, row_count, slice.logits_rows,
                                 slice.samples, sequence.prefilling()});
  sequence.planned = end;
  sequence.last_plan = next_plan_;
  ++sequence.plans_out;
  if (slice.samples) ++sequence.tokens_pending;
  plan.slices.push_back(std::move(slice));
}

}  // namespace muselet
