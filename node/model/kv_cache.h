// The paged key/value storage of a replica: for every layer one array of blocks, all layers of a
// group (one retention rule) sharing block numbers.
#pragma once

#include <vector>

#include "base/device/ops.h"
#include "node/engine/engine_options.h"
#include "node/model/model.h"
#include "node/model/model_config.h"

namespace muselet {

// Owns the memory; pages that no token was written to cost nothing. Immutable after Create, what
// stands in the blocks is the step thread's.
class KvCache {
 public:
  // As many blocks as options.bytes holds, the same number in every group. kResourceExhausted if
  // that is not even one sequence of 16 tokens.
  static Result<KvCache> Create(const ModelConfig& config, const KvOptions& options, DType dtype,
                                Ops& ops);

  const std::vector<KvGroupInfo>& groups() const { return groups_; }
  uint64_t bytes() const { return buffer_.size(); }
  uint32_t block_tokens() const { return kBlockTokens; }

  uint32_t group_of(size_t layer) const { return layers_[layer].group; }
  const PagedKv& layer(size_t layer) const { return layers_[layer].kv; }

 private:
  static constexpr uint32_t kBlockTokens = 16;
  struct Layer {
    uint32_t group = 0;
    PagedKv kv;
  };

  DeviceBuffer buffer_;
  std::vector<KvGroupInfo> groups_;
  std::vector<Layer> layers_;
};

}  // namespace muselet
