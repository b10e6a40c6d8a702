#include "node/model/kv_cache.h"

#include <algorithm>

namespace muselet {
namespace {

KvShape ShapeOf(const LayerSpec& spec, const AttentionPart& part, DType dtype) {
  return {dtype, KvCache::kBlockTokens, part.kv_heads, spec.head_dim};
}

// The groups without their numbers of blocks.
std::vector<KvGroupInfo> GroupsOf(const ModelConfig& config) {
  std::vector<KvGroupInfo> groups;
  for (const LayerSpec& spec : config.layers)
    if (KvGroupOf(groups, spec) == groups.size()) groups.push_back({0, spec.window_tokens});
  return groups;
}

// `blocks` for every group, but no more for one with a window than it makes use of.
std::vector<KvGroupInfo> WithBlocks(std::vector<KvGroupInfo> groups, uint32_t blocks,
                                    const BatchOptions& options) {
  const bool some_full = std::any_of(groups.begin(), groups.end(), [](const KvGroupInfo& group) {
    return group.window_tokens == 0;
  });
  for (KvGroupInfo& group : groups) {
    group.block_count = blocks;
    if (!some_full || group.window_tokens == 0) continue;
    const uint64_t used =
        KvWindowBlocks(group.window_tokens, options.prefill_chunk_max, options.sequences_max);
    group.block_count = static_cast<uint32_t>(std::min<uint64_t>(blocks, used));
  }
  return groups;
}

}  // namespace

DType KvDType(const EngineOptions& options) {
  if (options.kv.format == KvFormat::kFloat16) return DType::kF16;
  if (options.kv.format == KvFormat::kFloat32) return DType::kF32;
  return options.cpu.activations == ActivationFormat::kFloat32 ? DType::kF32 : DType::kF16;
}

uint64_t KvBlockBytes(const ModelConfig& config, const RankShard& shard,
                      const std::vector<KvGroupInfo>& groups, DType dtype, const Ops& ops) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < shard.layers.size(); ++i) {
    const LayerSpec& spec = config.layers[shard.layer_begin + i];
    const uint64_t blocks = groups[KvGroupOf(groups, spec)].block_count;
    for (const AttentionPart& part : shard.layers[i].attention)
      bytes += blocks * ops.KvBlockBytes(ShapeOf(spec, part, dtype));
  }
  return bytes;
}

size_t KvGroupOf(const std::vector<KvGroupInfo>& groups, const LayerSpec& spec) {
  const auto same = [&](const KvGroupInfo& group) {
    return group.window_tokens == spec.window_tokens;
  };
  return static_cast<size_t>(std::find_if(groups.begin(), groups.end(), same) - groups.begin());
}

uint64_t KvWindowBlocks(uint32_t window_tokens, uint32_t chunk_tokens, uint64_t sequences) {
  constexpr uint64_t kBlock = KvCache::kBlockTokens;
  const uint64_t seen = (uint64_t{window_tokens} + chunk_tokens + kBlock - 1) / kBlock + 1;
  return sequences * (seen + 1);
}

Result<std::vector<KvGroupInfo>> KvGroups(const ModelConfig& config, const ShardPlan& plan,
                                          const EngineOptions& options, const Ops& ops) {
  const DType dtype = KvDType(options);
  const std::vector<KvGroupInfo> groups = GroupsOf(config);
  const auto bytes_of = [&](uint32_t blocks) {
    uint64_t bytes = 0;
    for (const RankShard& shard : plan.ranks) {
      const auto counted = WithBlocks(groups, blocks, options.batch);
      bytes = std::max(bytes, KvBlockBytes(config, shard, counted, dtype, ops));
    }
    return bytes;
  };
  uint64_t fits = 0, too_many = uint64_t{UINT32_MAX} + 1;
  while (too_many - fits > 1) {
    const uint64_t middle = fits + (too_many - fits) / 2;
    (bytes_of(static_cast<uint32_t>(middle)) <= options.kv.bytes ? fits : too_many) = middle;
  }
  if (fits == 0) {
    return ResourceExhausted("kv.bytes: " + std::to_string(options.kv.bytes) +
                             " bytes do not hold one block of " +
                             std::to_string(KvCache::kBlockTokens) + " tokens (" +
                             std::to_string(bytes_of(1)) + " bytes); raise it");
  }
  return WithBlocks(groups, static_cast<uint32_t>(fits), options.batch);
}

Result<KvCache> KvCache::Create(const ModelConfig& config, const ShardPlan& plan, uint32_t rank,
                                const EngineOptions& options, Ops& ops) {
  const DType dtype = KvDType(options);
  KvCache cache;
  ASSIGN_OR_RETURN(cache.groups_, KvGroups(config, plan, options, ops));
  const RankShard& shard = plan.ranks[rank];
  ASSIGN_OR_RETURN(cache.buffer_,
                   ops.Allocate(KvBlockBytes(config, shard, cache.groups_, dtype, ops)));
  std::byte* next = cache.buffer_.data();
  for (size_t i = 0; i < shard.layers.size(); ++i) {
    const LayerSpec& spec = config.layers[shard.layer_begin + i];
    Layer layer;
    layer.group = static_cast<uint32_t>(KvGroupOf(cache.groups_, spec));
    const uint64_t blocks = cache.groups_[layer.group].block_count;
    for (const AttentionPart& part : shard.layers[i].attention) {
      layer.parts.push_back({ShapeOf(spec, part, dtype), next});
      next += blocks * ops.KvBlockBytes(layer.parts.back().shape);
    }
    cache.layers_.push_back(std::move(layer));
  }
  return cache;
}

}  // namespace muselet
