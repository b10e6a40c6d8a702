#include "node/model/kv_cache.h"

#include <algorithm>

namespace muselet {
namespace {

KvShape ShapeOf(const LayerSpec& spec, const AttentionPart& part, DType dtype) {
  return {dtype, KvCache::kBlockTokens, part.kv_heads, spec.head_dim};
}

size_t GroupOf(const std::vector<KvGroupInfo>& groups, const LayerSpec& spec) {
  const auto same = [&](const KvGroupInfo& group) {
    return group.window_tokens == spec.window_tokens;
  };
  return static_cast<size_t>(std::find_if(groups.begin(), groups.end(), same) - groups.begin());
}

}  // namespace

DType KvDType(const EngineOptions& options) {
  if (options.kv.format == KvFormat::kFloat16) return DType::kF16;
  if (options.kv.format == KvFormat::kFloat32) return DType::kF32;
  return options.cpu.activations == ActivationFormat::kFloat32 ? DType::kF32 : DType::kF16;
}

uint64_t KvBlockBytes(const ModelConfig& config, const RankShard& shard, DType dtype,
                      const Ops& ops) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < shard.layers.size(); ++i)
    for (const AttentionPart& part : shard.layers[i].attention)
      bytes += ops.KvBlockBytes(ShapeOf(config.layers[shard.layer_begin + i], part, dtype));
  return bytes;
}

Result<std::vector<KvGroupInfo>> KvGroups(const ModelConfig& config, const ShardPlan& plan,
                                          const KvOptions& options, DType dtype, const Ops& ops) {
  uint64_t block_bytes = 0;
  for (const RankShard& shard : plan.ranks)
    block_bytes = std::max(block_bytes, KvBlockBytes(config, shard, dtype, ops));
  const uint64_t blocks = std::min<uint64_t>(options.bytes / block_bytes, UINT32_MAX);
  if (blocks == 0) {
    return ResourceExhausted("kv.bytes: " + std::to_string(options.bytes) +
                             " bytes do not hold one block of " +
                             std::to_string(KvCache::kBlockTokens) + " tokens (" +
                             std::to_string(block_bytes) + " bytes); raise it");
  }
  std::vector<KvGroupInfo> groups;
  for (const LayerSpec& spec : config.layers)
    if (GroupOf(groups, spec) == groups.size())
      groups.push_back({static_cast<uint32_t>(blocks), spec.window_tokens});
  return groups;
}

Result<KvCache> KvCache::Create(const ModelConfig& config, const ShardPlan& plan, uint32_t rank,
                                const KvOptions& options, DType dtype, Ops& ops) {
  KvCache cache;
  ASSIGN_OR_RETURN(cache.groups_, KvGroups(config, plan, options, dtype, ops));
  const RankShard& shard = plan.ranks[rank];
  const uint64_t blocks = cache.groups_.front().block_count;
  ASSIGN_OR_RETURN(cache.buffer_,
                   ops.Allocate(blocks * muselet::KvBlockBytes(config, shard, dtype, ops)));
  std::byte* next = cache.buffer_.data();
  for (size_t i = 0; i < shard.layers.size(); ++i) {
    const LayerSpec& spec = config.layers[shard.layer_begin + i];
    Layer layer;
    layer.group = static_cast<uint32_t>(GroupOf(cache.groups_, spec));
    for (const AttentionPart& part : shard.layers[i].attention) {
      layer.parts.push_back({ShapeOf(spec, part, dtype), next});
      next += blocks * ops.KvBlockBytes(layer.parts.back().shape);
    }
    cache.layers_.push_back(std::move(layer));
  }
  return cache;
}

}  // namespace muselet
