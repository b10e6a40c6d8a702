#include "node/model/memory_plan.h"

#include <algorithm>

#include "node/cpu/packed_matrix.h"
#include "node/model/kv_cache.h"
#include "node/model/rank_exchange.h"

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
    uint64_t bytes = 2 * hidden_ * sizeof(float);  // norms
    for (const AttentionPart& part : shard.attention) bytes += OfPart(part);
    for (const FeedForwardPart& part : shard.feed_forward) bytes += OfPart(part);
    if (spec_.attention_bias) bytes += hidden_ * sizeof(float);
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
    const uint64_t one =
        Rows("gate", part.columns) + Rows("up", part.columns) + Columns("down", part.columns);
    const uint64_t biases = spec_.mlp_bias ? 2ULL * part.columns * sizeof(float) : 0;
    return (one + biases) * std::max(1U, spec_.experts);
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
  const uint64_t hidden = config.hidden_dim;
  uint64_t query = 0, kv = 0, ffn = 0, slots = 0;
  for (size_t i = 0; i < shard.layers.size(); ++i) {
    const size_t layer = shard.layer_begin + i;
    const LayerSpec& spec = config.layers[layer];
    uint64_t layer_query = 0, layer_kv = 0, layer_ffn = 0;
    for (const AttentionPart& part : shard.layers[i].attention) {
      layer_query += uint64_t{part.query_heads} * spec.head_dim;
      layer_kv += uint64_t{part.kv_heads} * spec.head_dim;
    }
    for (const FeedForwardPart& part : shard.layers[i].feed_forward) layer_ffn += part.columns;
    query = std::max(query, layer_query);
    kv = std::max(kv, layer_kv);
    ffn = std::max(ffn, layer_ffn * std::max(1U, spec.experts_active));
    if (plan.tensor > 1)
      slots = std::max<uint64_t>({slots, AttentionOrder(plan, shard.stage, layer).slots,
                                  FeedForwardOrder(plan, shard.stage, layer).slots});
  }
  const uint64_t row = 2 * hidden + 2 * query + 2 * kv + 2 * ffn;
  uint64_t values = row * step_tokens;
  // Own partial sums and those of all ranks, of as many rows as go into one message.
  const uint64_t at_once = std::min<uint64_t>(uint64_t{step_tokens} * slots * hidden,
                                              RankModel::kMessageBytesMax / sizeof(float));
  if (plan.tensor > 1) values += at_once * (plan.tensor + 1);
  if (shard.last_stage)
    values += uint64_t{sequences} * config.vocab_size * (plan.tensor > 1 ? 2 : 1);
  return values * sizeof(float);
}

RankMemory MemoryOf(const ModelConfig& config, const WeightFormat& format, const ShardPlan& plan,
                    uint32_t rank, const MemoryOptions& options) {
  const RankShard& shard = plan.ranks[rank];
  const KvTokenBytes token = KvBytesPerToken(config, shard, options.kv);
  RankMemory memory;
  memory.weights = WeightBytes(config, format, plan, rank);
  if (shard.first_stage && !plan.whole()) {
    const DTypeTraits traits = Traits(format("embedding"));
    memory.mapped =
        uint64_t{config.vocab_size} * config.hidden_dim / traits.block_values * traits.block_bytes;
  }
  memory.workspace = WorkspaceBytes(config, plan, rank, options.step_tokens, options.sequences);
  memory.kv_token = token.full + token.windowed;
  memory.kv_sequence = KvBytes(config, shard, options.kv, options.context_tokens);
  return memory;
}

uint64_t SequencesThatFit(const std::vector<RankMemory>& ranks, uint64_t device_bytes) {
  uint64_t sequences = UINT64_MAX;
  for (const RankMemory& rank : ranks) {
    const uint64_t taken = rank.weights + rank.workspace;
    const uint64_t room = device_bytes > taken ? device_bytes - taken : 0;
    sequences = std::min(sequences, room / std::max<uint64_t>(1, rank.kv_sequence));
  }
  return sequences;
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
      std::vector<RankMemory> memory;
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
