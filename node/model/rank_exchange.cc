#include "node/model/rank_exchange.h"

#include <algorithm>

#include "base/clock.h"

namespace muselet {
namespace {

float* Floats(const DeviceBuffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

// `parts_of(shard)` are the rank's parts of the product.
template <typename PartsOf>
PartialOrder OrderOf(const ShardPlan& plan, uint32_t stage, uint32_t segments,
                     const PartsOf& parts_of) {
  PartialOrder order;
  std::vector<SegmentRange> ranges;
  for (uint32_t t = 0; t < plan.tensor; ++t) {
    uint32_t slot = 0;
    for (const auto& part : parts_of(plan.at(stage, t))) {
      ranges.push_back(part.segments);
      order.parts.push_back({t, slot++, 0});
    }
    order.slots = std::max(order.slots, slot);
  }
  const std::vector<uint8_t> additions = SumOrder(ranges, segments);
  for (size_t i = 0; i < additions.size(); ++i) order.parts[i].additions = additions[i];
  return order;
}

}  // namespace

PartialOrder AttentionOrder(const ShardPlan& plan, uint32_t stage, size_t layer) {
  return OrderOf(plan, stage, plan.segments[layer].attention, [&](const RankShard& shard) {
    return shard.layers[layer - shard.layer_begin].attention;
  });
}

PartialOrder FeedForwardOrder(const ShardPlan& plan, uint32_t stage, size_t layer) {
  return OrderOf(plan, stage, plan.segments[layer].feed_forward, [&](const RankShard& shard) {
    return shard.layers[layer - shard.layer_begin].feed_forward;
  });
}

Status RankExchange::Reserve(Ops& ops, uint32_t rows, uint32_t slots) {
  if (plan_.tensor == 1) return OkStatus();
  const uint32_t at_once = std::min(rows, RowsAtOnce(slots));
  if (at_once <= rows_max_) return OkStatus();
  const size_t bytes = size_t{slots} * at_once * hidden_ * sizeof(float);
  ASSIGN_OR_RETURN(mine_, ops.Allocate(bytes));
  ASSIGN_OR_RETURN(all_, ops.Allocate(bytes * plan_.tensor));
  rows_max_ = at_once;
  return OkStatus();
}

Status RankExchange::ReserveLogits(Ops& ops, uint32_t rows) {
  if (plan_.tensor == 1 || !shard_.last_stage) return OkStatus();
  uint32_t widest = 0;
  for (uint32_t t = 0; t < plan_.tensor; ++t)
    widest = std::max(widest, plan_.at(shard_.stage, t).vocab_rows());
  const size_t width = size_t{shard_.vocab_rows()} + (shard_.tensor_rank == 0 ? widest : 0);
  ASSIGN_OR_RETURN(slices_, ops.Allocate(rows * width * sizeof(float)));
  return OkStatus();
}

uint32_t RankExchange::RowsAtOnce(uint32_t slots) const {
  const size_t row_bytes = size_t{slots} * hidden_ * sizeof(float);
  return static_cast<uint32_t>(std::max<size_t>(1, message_bytes_max_ / row_bytes));
}

Rows RankExchange::Slot(uint32_t slot, uint32_t rows) const {
  return {Floats(mine_) + size_t{slot} * rows * hidden_, rows, hidden_};
}

Status RankExchange::AddWhole(Ops& ops, const PartialOrder& order, const float* bias,
                              Rows residual) {
  const size_t partial = size_t{residual.count} * hidden_;
  const size_t bytes = order.slots * partial * sizeof(float);
  const RankTicket ticket =
      links_.tensor->AllGather({mine_.data(), bytes}, {all_.data(), bytes * plan_.tensor});
  RETURN_IF_ERROR(Await(*links_.tensor, ticket));
  partials_.clear();
  for (const PartialOrder::Part& part : order.parts) {
    const size_t index = size_t{part.tensor_rank} * order.slots + part.slot;
    partials_.push_back({Floats(all_) + index * partial, part.additions});
  }
  ops.AddPartials(partials_, bias, residual);
  return OkStatus();
}

Status RankExchange::Await(RankGroup& group, RankTicket ticket) {
  const int64_t begin_us = Clock::Real().NowUs();
  const Status done = group.Wait(ticket, deadline_us_);
  waited_us_ += Clock::Real().NowUs() - begin_us;
  return done;
}

Status RankExchange::SendBytes(RankGroup& group, const float* data, size_t count, uint32_t to) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const size_t total = count * sizeof(float);
  RankTicket ticket = 0;
  for (size_t at = 0; at < total; at += message_bytes_max_)
    ticket = group.Send({bytes + at, std::min(message_bytes_max_, total - at)}, to);
  return Await(group, ticket);
}

Status RankExchange::RecvBytes(RankGroup& group, float* data, size_t count, uint32_t from) {
  auto* bytes = reinterpret_cast<std::byte*>(data);
  const size_t total = count * sizeof(float);
  RankTicket ticket = 0;
  for (size_t at = 0; at < total; at += message_bytes_max_)
    ticket = group.Recv({bytes + at, std::min(message_bytes_max_, total - at)}, from);
  return Await(group, ticket);
}

Status RankExchange::Receive(Rows residual) {
  return RecvBytes(*links_.previous, residual.data, size_t{residual.count} * residual.width,
                   1 - links_.previous->rank());
}

Status RankExchange::Send(Rows residual) {
  return SendBytes(*links_.next, residual.data, size_t{residual.count} * residual.width,
                   1 - links_.next->rank());
}

Rows RankExchange::LogitsSlice(uint32_t rows) const {
  return {Floats(slices_), rows, shard_.vocab_rows()};
}

Status RankExchange::GatherLogits(uint32_t rows, float* logits) {
  const Rows own = LogitsSlice(rows);
  if (shard_.tensor_rank > 0)
    return SendBytes(*links_.tensor, own.data, size_t{rows} * own.width, 0);
  for (uint32_t t = 0; t < plan_.tensor; ++t) {
    const RankShard& from = plan_.at(shard_.stage, t);
    Rows slice = own;
    if (t > 0) {
      slice = {own.data + size_t{rows} * own.width, rows, from.vocab_rows()};
      RETURN_IF_ERROR(RecvBytes(*links_.tensor, slice.data, size_t{rows} * slice.width, t));
    }
    for (uint32_t row = 0; row < rows; ++row)
      std::copy_n(slice.row(row), slice.width, logits + size_t{row} * vocab_ + from.vocab_begin);
  }
  return OkStatus();
}

}  // namespace muselet
