// What a rank exchanges with others in a step: partial sums within its tensor group, the residual
// along the pipeline, slices of the logits.
#pragma once

#include <cstdint>
#include <vector>

#include "base/device/ops.h"
#include "base/status.h"
#include "node/model/rank_model.h"
#include "node/model/shard_plan.h"

namespace muselet {

// How the partial sums of one product, from all ranks of a tensor group, become the whole.
struct PartialOrder {
  struct Part {
    uint32_t tensor_rank = 0;
    uint32_t slot = 0;  // which of that rank's partial sums
    uint8_t additions = 0;
  };
  uint32_t slots = 1;  // of the rank that has most
  std::vector<Part> parts;
};

// Of the products o and down of a layer. REQUIRES: the stage holds the layer.
PartialOrder AttentionOrder(const ShardPlan& plan, uint32_t stage, size_t layer);
PartialOrder FeedForwardOrder(const ShardPlan& plan, uint32_t stage, size_t layer);

// Step thread only. All operations wait until they are done, by the deadline that was set: the
// memory of a step is used again by the next. What is sent is done once it stands in the link's
// queue, so a stage waits for the next one only while more is under way than the queue holds.
// Faults are those of RankGroup::Wait.
class RankExchange {
 public:
  // `message_bytes_max`: of one operation, at least of a row's partial sums.
  RankExchange(const ShardPlan& plan, uint32_t rank, uint32_t hidden, uint32_t vocab,
               size_t message_bytes_max)
      : plan_(plan),
        shard_(plan.ranks[rank]),
        hidden_(hidden),
        vocab_(vocab),
        message_bytes_max_(message_bytes_max) {}

  void Connect(const RankLinks& links) { links_ = links; }
  void SetDeadline(int64_t deadline_us) { deadline_us_ = deadline_us; }
  // How long operations have waited for other ranks, all together.
  int64_t waited_us() const { return waited_us_; }

  // Memory for partial sums of steps of so many rows, each with `slots` of them.
  Status Reserve(Ops& ops, uint32_t rows, uint32_t slots);
  // Memory for slices of the logits.
  Status ReserveLogits(Ops& ops, uint32_t rows);

  // How many rows go into one exchange of partial sums.
  uint32_t RowsAtOnce(uint32_t slots) const;
  // Where the `slot`-th own partial sum of the next exchange goes.
  Rows Slot(uint32_t slot, uint32_t rows) const;
  // Exchanges what stands in the slots and adds the whole, and the bias, onto `residual`.
  Status AddWhole(Ops& ops, const PartialOrder& order, const float* bias, Rows residual);

  // The residual between stages.
  Status Receive(Rows residual);
  Status Send(Rows residual);

  // Where this rank's slice of the logits goes: [rows, the rank's vocabulary rows].
  Rows LogitsSlice(uint32_t rows) const;
  // Tensor rank 0 puts all slices together in `logits`; the others hand theirs over.
  Status GatherLogits(uint32_t rows, float* logits);

 private:
  Status Await(RankGroup& group, RankTicket ticket);
  Status SendBytes(RankGroup& group, const float* data, size_t count, uint32_t to);
  Status RecvBytes(RankGroup& group, float* data, size_t count, uint32_t from);

  const ShardPlan& plan_;
  const RankShard& shard_;
  const uint32_t hidden_, vocab_;
  const size_t message_bytes_max_;
  RankLinks links_;
  int64_t deadline_us_ = INT64_MAX;
  int64_t waited_us_ = 0;
  uint32_t rows_max_ = 0;  // of one exchange
  DeviceBuffer mine_;      // [slots, rows, hidden]
  DeviceBuffer all_;       // [tensor ranks, slots, rows, hidden]
  DeviceBuffer slices_;    // logits: the own slice, then that which is received
  std::vector<PartialSum> partials_;
};

}  // namespace muselet
