#include "node/model/memory_plan.h"

#include <algorithm>

#include "node/cpu/packed_matrix.h"
#include "node/cpu/paged_attention.h"
#include "node/model/kv_cache.h"
#include "node/model/rank_exchange.h"
#include "node/model/rope_table.h"
#include "node/model/step_widths.h"

namespace muselet {
namespace {

uint64_t MatrixBytes(DType dtype, uint64_t rows, uint64_t columns) {
  return cpu::PackedBytes(dtype, rows, static_cast<uint32_t>(columns));
}

// Weights of one layer, summed by name.
class LayerBytes {
 public:
  LayerBytes(const ModelConfig& config, const WeightFormat& format, size_t layer)
      : spec_(config.layers[layer]),
        hidden_(config.hidden_dim),
        format_(format),
        prefix_("layers." + std::to_string(layer) + ".") {}

  uint64_t Of(const LayerShard& shard) const {
    uint64_t bytes = (spec_.post_norms ? 4 : 2) * hidden_ * sizeof(float);  // norms
    if (spec_.head_norm != HeadNorm::kNone) bytes += 2 * uint64_t{spec_.head_dim} * sizeof(float);
    for (const AttentionPart& part : shard.attention) bytes += OfPart(part);
    for (const FeedForwardPart& part : shard.feed_forward) bytes += OfPart(part);
    if (spec_.output_bias) bytes += hidden_ * sizeof(float);
    if (spec_.mlp_bias) bytes += hidden_ * sizeof(float);
    if (spec_.experts > 0)
      bytes += MatrixBytes(format_(prefix_ + "router"), spec_.experts, hidden_);
    return bytes;
  }

 private:
  uint64_t Rows(std::string_view name, uint64_t rows) const {
    return MatrixBytes(format_(prefix_ + std::string(name)), rows, hidden_);
  }
  uint64_t Columns(std::string_view name, uint64_t columns) const {
    return MatrixBytes(format_(prefix_ + std::string(name)), hidden_, columns);
  }
  uint64_t OfPart(const AttentionPart& part) const {
    const uint64_t query = uint64_t{part.query_heads} * spec_.head_dim;
    const uint64_t kv = uint64_t{part.kv_heads} * spec_.head_dim;
    uint64_t bytes = Rows("q", query) + Rows("k", kv) + Rows("v", kv) + Columns("o", query);
    if (spec_.output_gate) bytes += Rows("output_gate", query);
    if (spec_.attention_bias) bytes += (query + 2 * kv) * sizeof(float);
    return bytes;
  }
  uint64_t OfPart(const FeedForwardPart& part) const {
    const std::string expert = part.experts > 0 ? "experts.0." : "";
    const uint64_t one = Rows(expert + "gate", part.columns) + Rows(expert + "up", part.columns) +
                         Columns(expert + "down", part.columns);
    const uint64_t biases = spec_.mlp_bias ? 2ULL * part.columns * sizeof(float) : 0;
    return (one + biases) * std::max(1U, part.experts);
  }

  const LayerSpec& spec_;
  const uint64_t hidden_;
  const WeightFormat& format_;
  const std::string prefix_;
};

// Keys and values of one token of a layer, in bytes.
uint64_t TokenBytes(const LayerSpec& spec, const LayerShard& shard, DType kv) {
  uint64_t heads = 0;
  for (const AttentionPart& part : shard.attention) heads += part.kv_heads;
  return 2 * heads * spec.head_dim * Traits(kv).block_bytes;
}

uint64_t BlocksOf(uint64_t tokens) {
  return (tokens + KvCache::kBlockTokens - 1) / KvCache::kBlockTokens;
}

// The angles of a row, for every kind of rotation that the rank's layers have.
uint64_t AngleValues(const ModelConfig& config, const RankShard& shard) {
  uint64_t values = 0;
  for (uint32_t i = shard.layer_begin; i < shard.layer_end; ++i) {
    const RopeSpec& rope = config.layers[i].rope;
    const auto begin = config.layers.begin() + shard.layer_begin, end = config.layers.begin() + i;
    const auto same = [&](const LayerSpec& before) { return SameAngles(before.rope, rope); };
    if (std::none_of(begin, end, same)) values += 2 * std::max(1U, rope.rotary_dim / 2);
  }
  return values;
}

// Own partial sums and those of all ranks, of as many rows as go into one message.
uint64_t ExchangeValues(const ModelConfig& config, const ShardPlan& plan, const RankShard& shard,
                        uint32_t step_tokens) {
  if (plan.tensor == 1) return 0;
  uint64_t slots = 1;
  for (uint32_t layer = shard.layer_begin; layer < shard.layer_end; ++layer)
    slots = std::max<uint64_t>({slots, AttentionOrder(plan, shard.stage, layer).slots,
                                FeedForwardOrder(plan, shard.stage, layer).slots});
  const uint64_t row = slots * config.hidden_dim;
  const uint64_t in_message = RankModel::kMessageBytesMax / (row * sizeof(float));
  const uint64_t rows = std::min<uint64_t>(step_tokens, std::max<uint64_t>(1, in_message));
  return rows * row * (plan.tensor + 1);
}

// Tensor rank 0 puts the slices of all together.
uint64_t LogitsValues(const ModelConfig& config, const ShardPlan& plan, const RankShard& shard) {
  if (!shard.last_stage) return 0;
  uint32_t widest = 0;
  for (uint32_t t = 0; t < plan.tensor; ++t)
    widest = std::max(widest, plan.at(shard.stage, t).vocab_rows());
  const bool gathers = shard.tensor_rank == 0;
  const uint64_t slices = uint64_t{shard.vocab_rows()} + (gathers ? widest : 0);
  return (gathers ? config.vocab_size : 0) + (plan.tensor > 1 ? slices : 0);
}

std::vector<KvGroupMemory> GroupMemory(const ModelConfig& config, const RankShard& shard,
                                       const MemoryOptions& options) {
  const auto full = [](const LayerSpec& spec) { return spec.window_tokens == 0; };
  const bool some_full = std::any_of(config.layers.begin(), config.layers.end(), full);
  const uint32_t chunk = std::min(BatchOptions().prefill_chunk_max, options.step_tokens);
  std::vector<KvGroupInfo> infos;
  std::vector<KvGroupMemory> groups;
  for (const LayerSpec& spec : config.layers) {
    if (KvGroupOf(infos, spec) < infos.size()) continue;
    infos.push_back({0, spec.window_tokens});
    KvGroupMemory group;
    group.sequence_blocks = BlocksOf(options.context_tokens);
    if (spec.window_tokens > 0) {
      const uint64_t used = KvWindowBlocks(spec.window_tokens, chunk, 1);
      if (some_full) group.blocks_max = used;
      group.sequences = options.sequences;
      group.sequence_blocks = std::min(group.sequence_blocks, used);
    }
    groups.push_back(group);
  }
  for (size_t i = 0; i < shard.layers.size(); ++i) {
    const LayerSpec& spec = config.layers[shard.layer_begin + i];
    groups[KvGroupOf(infos, spec)].block_bytes +=
        KvCache::kBlockTokens * TokenBytes(spec, shard.layers[i], options.kv);
  }
  return groups;
}

}  // namespace

WeightFormat FormatsOf(const Checkpoint& checkpoint) {
  return [&checkpoint](std::string_view name) {
    const auto tensor = checkpoint.Tensor(name);
    return tensor.ok() ? tensor->dtype : DType::kF32;
  };
}

uint64_t WeightBytes(const ModelConfig& config, const WeightFormat& format, const ShardPlan& plan,
                     uint32_t rank) {
  const RankShard& shard = plan.ranks[rank];
  const uint64_t hidden = config.hidden_dim;
  uint64_t bytes = 0;
  for (size_t i = 0; i < shard.layers.size(); ++i)
    bytes += LayerBytes(config, format, shard.layer_begin + i).Of(shard.layers[i]);
  if (plan.whole() && !config.tied_embeddings)
    bytes += MatrixBytes(format("embedding"), config.vocab_size, hidden);
  if (shard.first_stage && config.embedding_norm_eps > 0.0) bytes += hidden * sizeof(float);
  if (shard.last_stage) {
    bytes += hidden * sizeof(float);
    bytes += MatrixBytes(format(config.tied_embeddings ? "embedding" : "output"),
                         shard.vocab_rows(), hidden);
  }
  return bytes;
}

uint64_t KvBytes(const ModelConfig& config, const RankShard& shard, DType kv, uint64_t tokens) {
  constexpr uint64_t kBlock = KvCache::kBlockTokens;
  uint64_t bytes = 0;
  for (size_t i = 0; i < shard.layers.size(); ++i) {
    const LayerSpec& spec = config.layers[shard.layer_begin + i];
    uint64_t kept = (tokens + kBlock - 1) / kBlock * kBlock;
    // A window that begins inside a block keeps that block too.
    if (spec.window_tokens > 0)
      kept = std::min(kept, (spec.window_tokens + kBlock - 1) / kBlock * kBlock + kBlock);
    bytes += kept * TokenBytes(spec, shard.layers[i], kv);
  }
  return bytes;
}

KvTokenBytes KvBytesPerToken(const ModelConfig& config, const RankShard& shard, DType kv) {
  KvTokenBytes bytes;
  for (size_t i = 0; i < shard.layers.size(); ++i) {
    const LayerSpec& spec = config.layers[shard.layer_begin + i];
    (spec.window_tokens > 0 ? bytes.windowed : bytes.full) += TokenBytes(spec, shard.layers[i], kv);
  }
  return bytes;
}

uint64_t WorkspaceBytes(const ModelConfig& config, const ShardPlan& plan, uint32_t rank,
                        uint32_t step_tokens, uint32_t sequences) {
  const RankShard& shard = plan.ranks[rank];
  const uint64_t row =
      WidestOf(config, shard).RowValues(config.hidden_dim) + AngleValues(config, shard);
  const uint64_t values = row * step_tokens + ExchangeValues(config, plan, shard, step_tokens) +
                          LogitsValues(config, plan, shard) * sequences;
  return values * sizeof(float) + KernelBytes(config, shard, step_tokens);
}

uint64_t KernelBytes(const ModelConfig& config, const RankShard& shard, uint32_t step_tokens) {
  const StepWidths widest = WidestOf(config, shard);
  const uint64_t columns =
      std::max({uint64_t{config.hidden_dim}, widest.query, widest.ffn, widest.down});
  // A byte a column, and a scale and a sum a block of 32; the inputs of experts, sorted.
  const uint64_t row = columns + columns / 32 * 2 * sizeof(float) + widest.down * sizeof(float);
  return step_tokens * row + cpu::kPartialBytesMax;
}

RankFootprint MemoryOf(const ModelConfig& config, const WeightFormat& format, const ShardPlan& plan,
                       uint32_t rank, const MemoryOptions& options) {
  const RankShard& shard = plan.ranks[rank];
  const KvTokenBytes token = KvBytesPerToken(config, shard, options.kv);
  RankFootprint memory;
  memory.weights = WeightBytes(config, format, plan, rank);
  if (shard.first_stage && !plan.whole()) {
    const DTypeTraits traits = Traits(format("embedding"));
    memory.mapped =
        uint64_t{config.vocab_size} * config.hidden_dim / traits.block_values * traits.block_bytes;
  }
  memory.workspace = WorkspaceBytes(config, plan, rank, options.step_tokens, options.sequences);
  memory.kv_token = token.full + token.windowed;
  memory.kv_sequence = KvBytes(config, shard, options.kv, options.context_tokens);
  memory.kv_groups = GroupMemory(config, shard, options);
  return memory;
}

uint64_t KvCacheBytes(const RankFootprint& rank, uint64_t sequences) {
  uint64_t blocks = 0;  // of every group, but for those that use fewer
  for (const KvGroupMemory& group : rank.kv_groups)
    blocks = std::max(blocks, sequences * group.sequence_blocks);
  uint64_t bytes = 0;
  for (const KvGroupMemory& group : rank.kv_groups) {
    const uint64_t most = group.blocks_max * std::max(group.sequences, sequences);
    bytes += group.block_bytes * (most > 0 ? std::min(blocks, most) : blocks);
  }
  return bytes;
}

uint64_t SequencesThatFit(const std::vector<RankFootprint>& ranks, uint64_t device_bytes) {
  const auto fit = [&](uint64_t sequences) {
    return std::all_of(ranks.begin(), ranks.end(), [&](const RankFootprint& rank) {
      const uint64_t taken = rank.weights + rank.workspace;
      return device_bytes > taken && KvCacheBytes(rank, sequences) <= device_bytes - taken;
    });
  };
  uint64_t fits = 0, too_many = uint64_t{1} << 20;  // far more than any scheduler runs
  while (too_many - fits > 1) {
    const uint64_t middle = fits + (too_many - fits) / 2;
    (fit(middle) ? fits : too_many) = middle;
  }
  return fits;
}

std::optional<ShardSpec> SmallestThatFits(const ModelConfig& config, const WeightFormat& format,
                                          const MemoryOptions& options, uint64_t device_bytes) {
  constexpr uint32_t kRanksMax = 1024;
  const std::vector<uint32_t> sizes = TensorSizesThatFit(config, format);
  uint64_t least = 0;  // ranks that are too few: weights alone do not fit on so few devices
  if (const auto whole = MakeShardPlan(config, format, ShardSpec()); whole.ok())
    least = WeightBytes(config, format, *whole, 0) / 2 / std::max<uint64_t>(1, device_bytes);
  for (uint32_t ranks = static_cast<uint32_t>(std::clamp<uint64_t>(least, 1, kRanksMax));
       ranks <= kRanksMax; ++ranks) {
    std::optional<ShardSpec> best;
    uint64_t most = 0;
    for (const uint32_t tensor : sizes) {
      if (ranks % tensor != 0 || ranks / tensor > config.layers.size()) continue;
      const ShardSpec spec = {tensor, ranks / tensor, {}};
      const auto plan = MakeShardPlan(config, format, spec);
      if (!plan.ok()) continue;
      std::vector<RankFootprint> memory;
      for (uint32_t rank = 0; rank < ranks; ++rank)
        memory.push_back(MemoryOf(config, format, *plan, rank, options));
      const uint64_t sequences = SequencesThatFit(memory, device_bytes);
      if (sequences > most) {
        most = sequences;
        best = spec;
      }
    }
    if (best) return best;
  }
  return std::nullopt;
}

}  // namespace muselet
