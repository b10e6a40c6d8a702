// The paged key/value storage of a rank: for every part of its layers one array of blocks, all
// layers of a group (one retention rule) sharing block numbers.
#pragma once

#include <vector>

#include "base/device/ops.h"
#include "node/engine/engine_options.h"
#include "node/model/model.h"
#include "node/model/model_config.h"
#include "node/model/shard_plan.h"

namespace muselet {

// Owns the memory; pages that no token was written to cost nothing. Immutable after Create, what
// stands in the blocks is the step thread's.
class KvCache {
 public:
  static constexpr uint32_t kBlockTokens = 16;

  // As many blocks as KvGroups counts. `ops` is of the rank that holds them.
  static Result<KvCache> Create(const ModelConfig& config, const ShardPlan& plan, uint32_t rank,
                                const EngineOptions& options, Ops& ops);

  const std::vector<KvGroupInfo>& groups() const { return groups_; }
  uint64_t bytes() const { return buffer_.size(); }
  uint32_t block_tokens() const { return kBlockTokens; }

  // `layer` counts from the rank's first.
  uint32_t group_of(size_t layer) const { return layers_[layer].group; }
  const PagedKv& part(size_t layer, size_t part) const { return layers_[layer].parts[part]; }

 private:
  struct Layer {
    uint32_t group = 0;
    std::vector<PagedKv> parts;  // parallel to LayerShard::attention
  };

  DeviceBuffer buffer_;
  std::vector<KvGroupInfo> groups_;
  std::vector<Layer> layers_;
};

// The format that `options` ask for.
DType KvDType(const EngineOptions& options);

// Bytes of the blocks of every layer that a rank holds, in groups of so many.
uint64_t KvBlockBytes(const ModelConfig& config, const RankShard& shard,
                      const std::vector<KvGroupInfo>& groups, DType dtype, const Ops& ops);

// The group of a layer; their number if it is in none of them.
size_t KvGroupOf(const std::vector<KvGroupInfo>& groups, const LayerSpec& spec);

// The most blocks that a group with a window makes use of for `sequences` at once: each has what
// the rows of a chunk see, and one to grow into.
uint64_t KvWindowBlocks(uint32_t window_tokens, uint32_t chunk_tokens, uint64_t sequences);

// The groups of the model, the same on every rank: as many blocks as kv.bytes holds on the rank
// that needs most. Where some layers have no window, those with one have no more blocks than
// batch.sequences_max sequences use, so that the others have the room. kResourceExhausted if that
// is not even one sequence of 16 tokens.
Result<std::vector<KvGroupInfo>> KvGroups(const ModelConfig& config, const ShardPlan& plan,
                                          const EngineOptions& options, const Ops& ops);

}  // namespace muselet
