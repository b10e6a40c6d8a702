#include "node/model/shard_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "node/model/memory_plan.h"
#include "node/model/stage_balance.h"
#include "node/model/weight_digest.h"

namespace muselet {
namespace {

constexpr uint32_t kFeedForwardGroups = 8;
constexpr uint32_t kAttentionGroups = 8;  // key/value heads are halved until there are as many
constexpr uint32_t kSegmentsMax = 64;
constexpr uint32_t kQuantizedColumns = 32;  // of a segment: multiples of
constexpr uint32_t kPlainColumns = 8;
constexpr uint32_t kVocabRows = 8;  // the head is cut at multiples of these

std::string LayerName(size_t layer, std::string_view name) {
  return fmt::format("layers.{}.{}", layer, name);
}

LayerSegments SegmentsOfLayer(const ModelConfig& config, size_t layer, const WeightFormat& format) {
  const bool experts = config.layers[layer].experts > 0;
  return SegmentsOf(config.layers[layer], format(LayerName(layer, "o")),
                    experts ? DType::kF32 : format(LayerName(layer, "down")));
}

// `units` over `ranks` as evenly as they go, the first ranks having more.
SegmentRange EvenShare(uint32_t units, uint32_t ranks, uint32_t rank) {
  const uint32_t each = units / ranks, more = units % ranks;
  const uint32_t begin = rank * each + std::min(rank, more);
  return {begin, begin + each + (rank < more ? 1 : 0)};
}

// How many equal runs of segments may be handed to ranks, 0 if heads and ranks do not fit.
uint32_t AttentionUnits(const LayerSpec& layer, uint32_t segments, uint32_t tensor) {
  if (tensor == 1) return 1;
  const uint32_t groups = std::gcd(segments, layer.kv_heads);  // whole key/value heads
  if (tensor <= groups) return groups;
  const bool replicated = tensor > layer.kv_heads && tensor % layer.kv_heads == 0 &&
                          layer.query_heads % tensor == 0 && segments % tensor == 0;
  return replicated ? tensor : 0;
}

AttentionPart PartOfHeads(const LayerSpec& layer, const SegmentRange& segments, uint32_t count) {
  const uint32_t heads = layer.query_heads / count;  // of a segment
  const uint32_t group = layer.query_heads / layer.kv_heads;
  AttentionPart part;
  part.segments = segments;
  part.query_begin = segments.begin * heads;
  part.query_heads = segments.count() * heads;
  part.kv_begin = part.query_begin / group;
  part.kv_heads = (part.query_begin + part.query_heads + group - 1) / group - part.kv_begin;
  return part;
}

FeedForwardPart PartOfColumns(const LayerSpec& layer, const SegmentRange& segments,
                              uint32_t count) {
  if (layer.experts > 0) {
    const uint32_t experts = layer.experts / count;  // of a run
    return {0, layer.ffn_dim, segments, segments.begin * experts, segments.count() * experts};
  }
  const uint32_t columns = layer.ffn_dim / count;  // of a segment
  return {segments.begin * columns, segments.count() * columns, segments, 0, 0};
}

// Nothing if the layer cannot be divided over `tensor` ranks.
std::optional<LayerShard> ShareOf(const LayerSpec& layer, const LayerSegments& segments,
                                  uint32_t tensor, uint32_t rank) {
  const uint32_t units = AttentionUnits(layer, segments.attention, tensor);
  if (units < tensor || segments.feed_forward < tensor) return std::nullopt;
  const uint32_t each = segments.attention / units;
  const SegmentRange share = EvenShare(units, tensor, rank);
  LayerShard shard;
  for (const SegmentRange& part :
       CompleteSubtrees({share.begin * each, share.end * each}, segments.attention))
    shard.attention.push_back(PartOfHeads(layer, part, segments.attention));
  for (const SegmentRange& part :
       CompleteSubtrees(EvenShare(segments.feed_forward, tensor, rank), segments.feed_forward))
    shard.feed_forward.push_back(PartOfColumns(layer, part, segments.feed_forward));
  return shard;
}

uint32_t VocabUnits(const ModelConfig& config) {
  return (config.vocab_size + kVocabRows - 1) / kVocabRows;
}

bool TensorSizeFits(const ModelConfig& config, const WeightFormat& format, uint32_t tensor) {
  if (VocabUnits(config) < tensor) return false;
  for (size_t i = 0; i < config.layers.size(); ++i)
    if (!ShareOf(config.layers[i], SegmentsOfLayer(config, i, format), tensor, 0)) return false;
  return true;
}

Status RefuseTensorSize(const ModelConfig& config, const WeightFormat& format, uint32_t tensor) {
  const LayerSpec& layer = config.layers.front();
  const LayerSegments segments = SegmentsOfLayer(config, 0, format);
  return InvalidArgument(fmt::format(
      "tensor {}: {} query heads over {} key/value heads and {} feed-forward groups of {} {} "
      "cannot be divided over {} ranks; sizes that fit: {}",
      tensor, layer.query_heads, layer.kv_heads, segments.feed_forward,
      (layer.experts > 0 ? layer.experts : layer.ffn_dim) / segments.feed_forward,
      layer.experts > 0 ? "experts" : "columns", tensor,
      fmt::join(TensorSizesThatFit(config, format), ", ")));
}

Status CheckLayer(const LayerSpec& layer, size_t index) {
  if (layer.kv_heads > 0 && layer.query_heads > 0 && layer.head_dim > 0 && layer.ffn_dim > 0 &&
      layer.query_heads % layer.kv_heads == 0)
    return OkStatus();
  return InvalidArgument(
      fmt::format("layer {}: {} query heads over {} key/value heads cannot be "
                  "divided",
                  index, layer.query_heads, layer.kv_heads));
}

Result<std::vector<uint32_t>> StageLayers(const ModelConfig& config, const WeightFormat& format,
                                          const ShardSpec& spec) {
  const size_t layers = config.layers.size();
  if (spec.pipeline > layers) {
    return InvalidArgument(
        fmt::format("pipeline {}: the model has only {} layers, and every stage "
                    "needs one",
                    spec.pipeline, layers));
  }
  if (spec.stage_layers.empty()) {
    std::vector<uint64_t> costs(layers);
    for (size_t i = 0; i < layers; ++i) costs[i] = LayerCost(config, i, format);
    return BalanceStages(costs, HeadCost(config, format), spec.pipeline);
  }
  if (spec.stage_layers.size() != spec.pipeline) {
    return InvalidArgument(fmt::format("layers of {} stages are given, pipeline is {}",
                                       spec.stage_layers.size(), spec.pipeline));
  }
  uint64_t sum = 0;
  for (const uint32_t count : spec.stage_layers) {
    if (count == 0) return InvalidArgument("a stage without layers; give each at least one");
    sum += count;
  }
  if (sum != layers) {
    return InvalidArgument(fmt::format("the stages have {} layers in all ({}), the model has {}",
                                       sum, fmt::join(spec.stage_layers, " + "), layers));
  }
  return spec.stage_layers;
}

uint64_t MatrixCost(uint64_t rows, uint64_t columns, DType dtype) {
  const DTypeTraits traits = Traits(dtype);
  return rows * columns + rows * columns * traits.block_bytes / traits.block_values;
}

std::string LayerText(const LayerShard& shard) {
  std::string text;
  for (const AttentionPart& part : shard.attention)
    text += fmt::format(" q{}+{} kv{}+{} s{}-{}", part.query_begin, part.query_heads, part.kv_begin,
                        part.kv_heads, part.segments.begin, part.segments.end);
  for (const FeedForwardPart& part : shard.feed_forward) {
    text += fmt::format(" f{}+{} s{}-{}", part.column_begin, part.columns, part.segments.begin,
                        part.segments.end);
    if (part.experts > 0) text += fmt::format(" e{}+{}", part.expert_begin, part.experts);
  }
  return text;
}

}  // namespace

uint32_t SegmentCount(uint32_t columns, uint32_t groups, DType dtype) {
  const uint32_t block = IsQuantized(dtype) ? kQuantizedColumns : kPlainColumns;
  for (uint32_t count = std::min(groups, kSegmentsMax); count > 1; --count) {
    if (groups % count == 0 && columns % (count * block) == 0) return count;
  }
  return 1;
}

LayerSegments SegmentsOf(const LayerSpec& layer, DType o, DType down) {
  uint32_t groups = layer.kv_heads;
  while (groups * 2 <= kAttentionGroups && layer.query_heads % (groups * 2) == 0) groups *= 2;
  const uint32_t attention = SegmentCount(layer.query_heads * layer.head_dim, groups, o);
  if (layer.experts == 0) return {attention, SegmentCount(layer.ffn_dim, kFeedForwardGroups, down)};
  uint32_t runs = std::min(layer.experts, kFeedForwardGroups);
  while (layer.experts % runs != 0) --runs;
  return {attention, runs};
}

std::vector<SegmentRange> CompleteSubtrees(const SegmentRange& range, uint32_t count) {
  std::vector<SegmentRange> trees;
  for (uint32_t begin = range.begin; begin < range.end;) {
    uint32_t size = 1;
    while (begin % (2 * size) == 0 && begin + size < range.end &&
           std::min(begin + 2 * size, count) <= range.end)
      size *= 2;
    const uint32_t end = std::min(begin + size, count);
    trees.push_back({begin, end});
    begin = end;
  }
  return trees;
}

std::vector<uint8_t> SumOrder(const std::vector<SegmentRange>& parts, uint32_t count) {
  std::vector<uint8_t> order;
  std::vector<SegmentRange> stack;
  for (const SegmentRange& part : parts) {
    stack.push_back(part);
    uint8_t additions = 0;
    while (stack.size() > 1) {
      SegmentRange& left = stack[stack.size() - 2];
      const uint32_t size = left.count();
      if (left.begin % (2 * size) != 0 ||
          stack.back().end != std::min(left.begin + 2 * size, count))
        break;
      left.end = stack.back().end;
      stack.pop_back();
      ++additions;
    }
    order.push_back(additions);
  }
  CHECK(stack.size() == 1 && stack[0] == (SegmentRange{0, count}), "parts do not make the whole");
  return order;
}

uint64_t LayerCost(const ModelConfig& config, size_t layer, const WeightFormat& format) {
  const LayerSpec& spec = config.layers[layer];
  const uint64_t hidden = config.hidden_dim;
  const uint64_t query = uint64_t{spec.query_heads} * spec.head_dim;
  const uint64_t kv = uint64_t{spec.kv_heads} * spec.head_dim;
  uint64_t cost = 0;
  const auto add = [&](std::string_view name, uint64_t rows) {
    cost += MatrixCost(rows, hidden, format(LayerName(layer, name)));
  };
  add("q", query);
  add("k", kv);
  add("v", kv);
  add("o", query);
  if (spec.output_gate) add("output_gate", query);
  const std::string expert = spec.experts > 0 ? "experts.0." : "";
  for (const std::string_view name : {"gate", "up", "down"})
    add(expert + std::string(name), uint64_t{spec.ffn_dim} * std::max(1U, spec.experts_active));
  if (spec.experts > 0) add("router", spec.experts);
  return cost;
}

uint64_t HeadCost(const ModelConfig& config, const WeightFormat& format) {
  return MatrixCost(config.vocab_size, config.hidden_dim,
                    format(config.tied_embeddings ? "embedding" : "output"));
}

std::vector<uint32_t> TensorSizesThatFit(const ModelConfig& config, const WeightFormat& format) {
  std::vector<uint32_t> sizes;
  for (uint32_t tensor = 1; tensor <= kSegmentsMax; ++tensor)
    if (TensorSizeFits(config, format, tensor)) sizes.push_back(tensor);
  return sizes;
}

Result<ShardPlan> MakeShardPlan(const ModelConfig& config, const WeightFormat& format,
                                const ShardSpec& spec) {
  if (spec.tensor == 0 || spec.pipeline == 0)
    return InvalidArgument("tensor and pipeline are at least 1");
  if (config.layers.empty() || config.vocab_size == 0 || config.hidden_dim == 0)
    return InvalidArgument("a model without layers or vocabulary cannot be computed");
  for (size_t i = 0; i < config.layers.size(); ++i)
    RETURN_IF_ERROR(CheckLayer(config.layers[i], i));
  if (spec.tensor > kSegmentsMax || !TensorSizeFits(config, format, spec.tensor))
    return RefuseTensorSize(config, format, spec.tensor);
  ASSIGN_OR_RETURN(const std::vector<uint32_t> stage_layers, StageLayers(config, format, spec));

  ShardPlan plan;
  plan.tensor = spec.tensor;
  plan.pipeline = spec.pipeline;
  for (size_t i = 0; i < config.layers.size(); ++i)
    plan.segments.push_back(SegmentsOfLayer(config, i, format));
  uint32_t layer = 0;
  for (uint32_t stage = 0; stage < spec.pipeline; ++stage) {
    for (uint32_t t = 0; t < spec.tensor; ++t) {
      RankShard shard;
      shard.rank = stage * spec.tensor + t;
      shard.stage = stage;
      shard.tensor_rank = t;
      shard.layer_begin = layer;
      shard.layer_end = layer + stage_layers[stage];
      shard.first_stage = stage == 0;
      shard.last_stage = stage + 1 == spec.pipeline;
      for (uint32_t i = shard.layer_begin; i < shard.layer_end; ++i)
        shard.layers.push_back(*ShareOf(config.layers[i], plan.segments[i], spec.tensor, t));
      if (shard.last_stage) {
        const SegmentRange rows = EvenShare(VocabUnits(config), spec.tensor, t);
        shard.vocab_begin = std::min(rows.begin * kVocabRows, config.vocab_size);
        shard.vocab_end = std::min(rows.end * kVocabRows, config.vocab_size);
      }
      plan.ranks.push_back(std::move(shard));
    }
    layer += stage_layers[stage];
  }
  return plan;
}

Result<ShardPlan> MakeShardPlan(const Checkpoint& checkpoint, const ShardSpec& spec) {
  return MakeShardPlan(checkpoint.config(), FormatsOf(checkpoint), spec);
}

std::string ShardPlan::Digest() const {
  WeightDigest digest;
  digest.Add(fmt::format("tensor {} pipeline {}\n", tensor, pipeline));
  for (const LayerSegments& layer : segments)
    digest.Add(fmt::format("{} {}\n", layer.attention, layer.feed_forward));
  for (const RankShard& rank : ranks) {
    digest.Add(fmt::format("rank {} layers {}-{} vocabulary {}-{}\n", rank.rank, rank.layer_begin,
                           rank.layer_end, rank.vocab_begin, rank.vocab_end));
    for (const LayerShard& layer : rank.layers) digest.Add(LayerText(layer) + "\n");
  }
  return digest.Hex();
}

}  // namespace muselet
