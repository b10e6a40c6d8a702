// How much memory each rank of a shard plan needs, and what fits on given devices; from a config
// alone, so that a model can be planned for before it is there or can be computed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/device/dtype.h"
#include "base/status.h"
#include "node/model/checkpoint.h"
#include "node/model/model_config.h"
#include "node/model/shard_plan.h"

namespace muselet {

// The formats of a checkpoint's tensors; f32 for those that it lacks.
WeightFormat FormatsOf(const Checkpoint& checkpoint);

// Bytes of the weights that a rank prepares (the CPU backend's panels). What is looked up in the
// mapped file is not counted. REQUIRES: the plan was made of this config and these formats.
uint64_t WeightBytes(const ModelConfig& config, const WeightFormat& format, const ShardPlan& plan,
                     uint32_t rank);

// Bytes that a rank keeps of a sequence of `tokens` tokens, in whole blocks; layers with a window
// keep no more than that.
uint64_t KvBytes(const ModelConfig& config, const RankShard& shard, DType kv, uint64_t tokens);
// Of one token more, in layers without a window and with one.
struct KvTokenBytes {
  uint64_t full = 0;
  uint64_t windowed = 0;
};
KvTokenBytes KvBytesPerToken(const ModelConfig& config, const RankShard& shard, DType kv);

// Bytes of activations and exchanged sums in steps of `step_tokens` rows, of which `sequences` need
// logits; KernelBytes included.
uint64_t WorkspaceBytes(const ModelConfig& config, const ShardPlan& plan, uint32_t rank,
                        uint32_t step_tokens, uint32_t sequences);
// The most that the CPU backend's kernels work in besides: rounded inputs, and attention's partial
// results. What each thread has of its own is not counted.
uint64_t KernelBytes(const ModelConfig& config, const RankShard& shard, uint32_t step_tokens);

// What ranks are to have room for.
struct MemoryOptions {
  DType kv = DType::kF16;
  uint32_t context_tokens = 0;  // of a sequence
  uint32_t step_tokens = 512;
  uint32_t sequences = 64;  // that may need logits in one step
};

// Blocks of the layers with one retention rule (KvGroups) on a rank.
struct KvGroupMemory {
  uint64_t block_bytes = 0;
  uint64_t sequence_blocks = 0;  // that a sequence of context_tokens takes
  // The most that so many sequences use each, and how many the cache is made for; 0 = no limit.
  uint64_t blocks_max = 0;
  uint64_t sequences = 0;
};

// In bytes.
struct RankFootprint {
  uint64_t weights = 0;
  uint64_t mapped = 0;  // embeddings that are looked up in the file; not device memory
  uint64_t workspace = 0;
  uint64_t kv_token = 0;     // of one more token, windows not yet full
  uint64_t kv_sequence = 0;  // that a sequence of context_tokens keeps
  std::vector<KvGroupMemory> kv_groups;
};
RankFootprint MemoryOf(const ModelConfig& config, const WeightFormat& format, const ShardPlan& plan,
                       uint32_t rank, const MemoryOptions& options);

// kv.bytes that a rank needs for `sequences` sequences of context_tokens: what KvGroups shares out.
uint64_t KvCacheBytes(const RankFootprint& rank, uint64_t sequences);

// How many sequences fit if every rank has a device of `device_bytes`.
uint64_t SequencesThatFit(const std::vector<RankFootprint>& ranks, uint64_t device_bytes);

// The layout of the fewest ranks on which one sequence fits; of equal ones that with the most
// sequences. Nothing if none of at most 1024 ranks does.
std::optional<ShardSpec> SmallestThatFits(const ModelConfig& config, const WeightFormat& format,
                                          const MemoryOptions& options, uint64_t device_bytes);

}  // namespace muselet
