// How a model is divided over the tensor x pipeline ranks of a replica, so that every layout gives
// the same bits: which layers, heads, feed-forward columns and vocabulary rows each rank holds.
//
// A product's sum over columns is cut into segments (base/device/ops.h, "shard invariance"), whose
// number depends on the model only. A rank holds whole segments of the two products that sum over
// what is divided, o (over heads) and down (over feed-forward columns). What it holds falls into
// parts: each part is one complete subtree of the tree over the segments, and gives one partial
// sum. Of a layer with experts a rank holds whole experts, in runs that are summed like segments.
//
// Plain values; immutable once made.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/device/dtype.h"
#include "base/status.h"
#include "node/model/checkpoint.h"
#include "node/model/model_config.h"

namespace muselet {

struct ShardSpec {
  uint32_t tensor = 1;
  uint32_t pipeline = 1;
  std::vector<uint32_t> stage_layers;  // number of layers of each stage; empty = balanced by cost
};

// The format of a weight, by canonical name (node/model/checkpoint.h).
using WeightFormat = std::function<DType(std::string_view canonical_name)>;

// Segments [begin, end).
struct SegmentRange {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t count() const { return end - begin; }
  bool operator==(const SegmentRange&) const = default;
};

// Heads whose part of the output projection is one partial sum.
struct AttentionPart {
  uint32_t query_begin = 0, query_heads = 0;
  uint32_t kv_begin = 0, kv_heads = 0;
  SegmentRange segments;  // of o's columns
};

// Feed-forward columns whose part of the down projection is one partial sum; or whole experts whose
// results are.
struct FeedForwardPart {
  uint32_t column_begin = 0, columns = 0;
  SegmentRange segments;  // of down's columns, or runs of experts
  uint32_t expert_begin = 0, experts = 0;
};

// What a rank holds of one layer, in segment order.
struct LayerShard {
  std::vector<AttentionPart> attention;
  std::vector<FeedForwardPart> feed_forward;
};

struct RankShard {
  uint32_t rank = 0;  // stage * tensor + tensor_rank
  uint32_t stage = 0;
  uint32_t tensor_rank = 0;
  uint32_t layer_begin = 0, layer_end = 0;
  std::vector<LayerShard> layers;                // of layer_begin ...
  uint32_t vocab_begin = 0, vocab_end = 0;       // rows of the head; empty but on the last stage
  bool first_stage = false, last_stage = false;  // looks embeddings up; computes logits

  uint32_t vocab_rows() const { return vocab_end - vocab_begin; }
};

// Into how many segments the products of a layer are cut.
struct LayerSegments {
  uint32_t attention = 1;
  uint32_t feed_forward = 1;
};

struct ShardPlan {
  uint32_t tensor = 1;
  uint32_t pipeline = 1;
  std::vector<LayerSegments> segments;  // of every layer of the model
  std::vector<RankShard> ranks;         // by number

  uint32_t rank_count() const { return tensor * pipeline; }
  bool whole() const { return rank_count() == 1; }
  const RankShard& at(uint32_t stage, uint32_t tensor_rank) const {
    return ranks[stage * tensor + tensor_rank];
  }
  // 32 hex digits; equal plans, equal digests. Ranks compare it before they join.
  std::string Digest() const;
};

// kInvalidArgument: a tensor size that the heads or the feed-forward columns cannot be divided
// into, with the sizes that they can; more stages than layers; layers by hand that do not add up.
Result<ShardPlan> MakeShardPlan(const ModelConfig& config, const WeightFormat& format,
                                const ShardSpec& spec);
Result<ShardPlan> MakeShardPlan(const Checkpoint& checkpoint, const ShardSpec& spec);

// The tensor sizes that MakeShardPlan accepts, ascending.
std::vector<uint32_t> TensorSizesThatFit(const ModelConfig& config, const WeightFormat& format);

// Into how many segments the sum over `columns` is cut, if `groups` would be best: the largest
// divisor of `groups` that gives whole blocks of the format (of 8 columns in a plain one). It
// depends on the model only, so that every way of sharding gives the same bits.
uint32_t SegmentCount(uint32_t columns, uint32_t groups, DType dtype);

// Segments of o and down of a layer; with experts, instead of down's, runs of experts (as many as
// divide them evenly, up to 8). The groups of o are the grouped-query groups; where those are
// few, halves of them, quarters, ..., so that key/value heads can be replicated.
LayerSegments SegmentsOf(const LayerSpec& layer, DType o, DType down);

// The maximal complete subtrees in `range` of the pairwise tree over `count` segments, in order.
std::vector<SegmentRange> CompleteSubtrees(const SegmentRange& range, uint32_t count);

// How partial sums that cover all `count` segments in order, each a complete subtree, become the
// whole: the number of additions of the two topmost after each is laid on the stack.
std::vector<uint8_t> SumOrder(const std::vector<SegmentRange>& parts, uint32_t count);

// What a layer and the head cost in a decode step: a multiply-add a weight and a read a byte. Used
// to balance the stages.
uint64_t LayerCost(const ModelConfig& config, size_t layer, const WeightFormat& format);
uint64_t HeadCost(const ModelConfig& config, const WeightFormat& format);

}  // namespace muselet
