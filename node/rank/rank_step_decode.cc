// The step: what ranks index memory with.
#include <utility>

#include "comms/wire_convert.h"
#include "node/engine/sampler.h"
#include "node/rank/rank_convert.h"
#include "node/rank/wire_checks.h"

namespace muselet {
namespace {

namespace pb = muselet::rank::v1;

constexpr int64_t kTimeoutMaxUs = 24LL * 3600 * 1'000'000;

std::string SliceName(int index) {
  return "step.plan.slices[" + std::to_string(index) + "]";
}

Status CheckColumns(const pb::Plan& from, const RankLimits& limits) {
  const int slices = from.slots_size();
  RETURN_IF_ERROR(CheckSize(slices, limits.slots, "step.plan.slices"));
  RETURN_IF_ERROR(CheckSize(from.tokens_size(), limits.rows_max, "step.plan.tokens"));
  if (slices == 0) return InvalidArgument("step.plan.slices: none");
  if (from.first_positions_size() != slices || from.row_counts_size() != slices ||
      from.logits_rows_size() != slices || from.samples_size() != slices) {
    return InvalidArgument("step.plan.slices: columns of different lengths");
  }
  if (from.groups() != limits.kv_blocks.size()) {
    return InvalidArgument("step.plan.groups: " + std::to_string(from.groups()) +
                           ", the model has " + std::to_string(limits.kv_blocks.size()));
  }
  if (uint64_t{from.groups()} * slices != static_cast<uint64_t>(from.table_counts_size()))
    return InvalidArgument("step.plan.table_counts: not one a slice and KV group");
  return OkStatus();
}

// The rows of a slice, and what is asked of them.
Status TakeRows(const pb::Plan& from, int index, const RankLimits& limits, uint32_t row_begin,
                SequenceSlice& to) {
  to.slot = from.slots(index);
  to.first_position = from.first_positions(index);
  to.row_begin = row_begin;
  to.row_count = from.row_counts(index);
  to.logits_rows = from.logits_rows(index);
  to.samples = from.samples(index);
  if (to.slot >= limits.slots)
    return InvalidArgument(SliceName(index) + ": no slot " + std::to_string(to.slot));
  if (to.row_count == 0 ||
      uint64_t{row_begin} + to.row_count > static_cast<uint64_t>(from.tokens_size())) {
    return InvalidArgument(SliceName(index) + ": rows that the plan does not have");
  }
  if (uint64_t{to.first_position} + to.row_count > limits.context_tokens)
    return InvalidArgument(SliceName(index) + ": positions outside the context of " +
                           std::to_string(limits.context_tokens));
  if (to.logits_rows > to.row_count || (to.samples && to.logits_rows == 0))
    return InvalidArgument(SliceName(index) + ": " + std::to_string(to.logits_rows) +
                           " rows of logits of " + std::to_string(to.row_count));
  // Only the last row of a slice can be ahead of what was known when the plan was made.
  for (uint32_t row = row_begin; row < row_begin + to.row_count; ++row) {
    const TokenId id = from.tokens(static_cast<int>(row));
    if (id == kTokenFromEarlierPlan && row + 1 == row_begin + to.row_count) continue;
    RETURN_IF_ERROR(CheckTokenId(id, limits.vocab_size, "step.plan.tokens"));
  }
  return OkStatus();
}

Status TakeTables(const pb::Plan& from, int index, const RankLimits& limits, uint32_t& begin,
                  SequenceSlice& to) {
  const uint64_t positions = uint64_t{to.first_position} + to.row_count;
  const auto groups = static_cast<int>(limits.kv_blocks.size());
  for (int group = 0; group < groups; ++group) {
    const uint32_t count = from.table_counts(index * groups + group);
    if (uint64_t{begin} + count > static_cast<uint64_t>(from.block_tables_size()))
      return InvalidArgument(SliceName(index) + ": a block table beyond the plan's");
    if (uint64_t{count} * limits.block_tokens < positions)
      return InvalidArgument(SliceName(index) + ": a block table of " + std::to_string(count) +
                             " does not cover " + std::to_string(positions) + " positions");
    for (uint32_t i = begin; i < begin + count; ++i) {
      const uint32_t block = from.block_tables(static_cast<int>(i));
      if (block >= limits.kv_blocks[group])
        return InvalidArgument(SliceName(index) + ": KV group " + std::to_string(group) +
                               " has no block " + std::to_string(block));
    }
    to.table_begin.push_back(begin);
    to.table_count.push_back(count);
    begin += count;
  }
  return OkStatus();
}

}  // namespace

Status FromWire(const pb::Plan& from, const RankLimits& limits, StepPlan& to) {
  RETURN_IF_ERROR(CheckColumns(from, limits));
  RETURN_IF_ERROR(CheckDuration(from.predicted_us(), "step.plan.predicted_us"));
  uint32_t row_begin = 0;
  uint32_t table_begin = 0;
  std::vector<bool> named(limits.slots);
  to.slices.resize(from.slots_size());
  for (int i = 0; i < from.slots_size(); ++i) {
    SequenceSlice& slice = to.slices[i];
    RETURN_IF_ERROR(TakeRows(from, i, limits, row_begin, slice));
    RETURN_IF_ERROR(TakeTables(from, i, limits, table_begin, slice));
    if (named[slice.slot]) return InvalidArgument(SliceName(i) + ": a slot that is named twice");
    named[slice.slot] = true;
    row_begin += slice.row_count;
  }
  if (row_begin != static_cast<uint32_t>(from.tokens_size()))
    return InvalidArgument("step.plan.tokens: rows of no slice");
  if (table_begin != static_cast<uint32_t>(from.block_tables_size()))
    return InvalidArgument("step.plan.block_tables: entries of no slice");
  to.number = from.number();
  to.predicted_us = from.predicted_us();
  to.tokens.assign(from.tokens().begin(), from.tokens().end());
  to.block_tables.assign(from.block_tables().begin(), from.block_tables().end());
  return OkStatus();
}

Status FromWire(const pb::SlotStart& from, const RankLimits& limits, SlotStart& to) {
  if (from.slot() >= limits.slots)
    return InvalidArgument("step.starts: no slot " + std::to_string(from.slot()));
  RETURN_IF_ERROR(CheckSize(from.token_limit(), limits.context_tokens, "step.starts.token_limit"));
  RETURN_IF_ERROR(CheckSize(from.prompt_count(), from.token_limit(), "step.starts.prompt_count"));
  RETURN_IF_ERROR(CheckSize(from.tokens_size(), from.token_limit(), "step.starts.tokens"));
  for (const TokenId id : from.tokens())
    RETURN_IF_ERROR(CheckTokenId(id, limits.vocab_size, "step.starts.tokens"));
  to.slot = from.slot();
  to.choice = from.choice();
  to.prompt_count = from.prompt_count();
  to.token_limit = from.token_limit();
  to.tokens.assign(from.tokens().begin(), from.tokens().end());
  RETURN_IF_ERROR(muselet::FromWire(from.sampling(), "step.starts.sampling", to.sampling));
  RETURN_IF_ERROR(muselet::FromWire(from.stop(), "step.starts.stop", to.stop));
  RETURN_IF_ERROR(
      CheckSampling(to.sampling, limits.vocab_size).WithContext("step.starts.sampling"));
  // Who wants logprobs of its prompt, or counts of tokens, must have given the tokens.
  if (to.sampling.prompt_logprobs >= 0 && to.tokens.size() < to.prompt_count)
    return InvalidArgument("step.starts.tokens: fewer than the prompt's");
  return OkStatus();
}

Status FromWire(const pb::Step& from, const RankLimits& limits, RankStep& to) {
  RETURN_IF_ERROR(CheckDuration(from.timeout_us(), "step.timeout_us"));
  if (from.timeout_us() > kTimeoutMaxUs) return InvalidArgument("step.timeout_us: over a day");
  RETURN_IF_ERROR(CheckSize(from.starts_size(), limits.slots, "step.starts"));
  to.epoch = from.epoch();
  to.step = from.step();
  to.timeout_us = from.timeout_us();
  RETURN_IF_ERROR(FromWire(from.plan(), limits, to.plan));
  to.starts.resize(from.starts_size());
  for (int i = 0; i < from.starts_size(); ++i)
    RETURN_IF_ERROR(FromWire(from.starts(i), limits, to.starts[i]));
  return OkStatus();
}

}  // namespace muselet
