#include "node/model/kv_cache.h"

#include <algorithm>

namespace muselet {

Result<KvCache> KvCache::Create(const ModelConfig& config, const KvOptions& options, DType dtype,
                                Ops& ops) {
  KvCache cache;
  uint64_t block_bytes = 0;  // of all layers
  for (const LayerSpec& spec : config.layers) {
    Layer layer;
    layer.kv.shape = {dtype, kBlockTokens, spec.kv_heads, spec.head_dim};
    const auto same = [&](const KvGroupInfo& group) {
      return group.window_tokens == spec.window_tokens;
    };
    const auto group = std::find_if(cache.groups_.begin(), cache.groups_.end(), same);
    layer.group = static_cast<uint32_t>(group - cache.groups_.begin());
    if (group == cache.groups_.end()) cache.groups_.push_back({0, spec.window_tokens});
    block_bytes += ops.KvBlockBytes(layer.kv.shape);
    cache.layers_.push_back(layer);
  }
  const uint64_t blocks = std::min<uint64_t>(options.bytes / block_bytes, UINT32_MAX);
  if (blocks == 0) {
    return ResourceExhausted("kv.bytes: " + std::to_string(options.bytes) +
                             " bytes do not hold one block of " + std::to_string(kBlockTokens) +
                             " tokens (" + std::to_string(block_bytes) + " bytes); raise it");
  }
  ASSIGN_OR_RETURN(cache.buffer_, ops.Allocate(blocks * block_bytes));
  for (KvGroupInfo& group : cache.groups_) group.block_count = static_cast<uint32_t>(blocks);
  std::byte* next = cache.buffer_.data();
  for (Layer& layer : cache.layers_) {
    layer.kv.blocks = next;
    next += blocks * ops.KvBlockBytes(layer.kv.shape);
  }
  return cache;
}

}  // namespace muselet
