#include "node/model/weights.h"

#include <algorithm>
#include <string>

#include "base/device/dequantize.h"

namespace muselet {
namespace {

// The part of a tensor that a rank holds.
struct Extent {
  uint64_t begin = 0;
  uint64_t count = 0;
};

Status WrongShape(const std::string& name, const TensorView& tensor, const std::string& expected) {
  return InvalidArgument("tensor " + name + " is " + tensor.ToString() +
                         ", the model's config asks for [" + expected + "]");
}

// Rows of a matrix, or elements of a vector. REQUIRES: whole blocks.
TensorView Slice(const TensorView& tensor, const Extent& rows) {
  const DTypeTraits traits = Traits(tensor.dtype);
  const uint64_t width = tensor.rank == 1 ? 1 : tensor.dim(1);
  TensorView slice = tensor;
  slice.data += rows.begin * width / traits.block_values * traits.block_bytes;
  slice.shape[0] = rows.count;
  return slice;
}

// Walks over what the rank holds, twice: to count the bytes that it will read, and to read them.
class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, Ops& ops, const ShardPlan& plan, uint32_t rank,
               const LoadProgress& progress)
      : checkpoint_(checkpoint),
        config_(checkpoint.config()),
        ops_(ops),
        plan_(plan),
        shard_(plan.ranks[rank]),
        progress_(progress) {}

  Result<ModelWeights> Load() {
    counting_ = true;
    RETURN_IF_ERROR(LoadAll());
    counting_ = false;
    weights_ = {};
    RETURN_IF_ERROR(LoadAll());
    return std::move(weights_);
  }

 private:
  Status LoadAll() {
    RETURN_IF_ERROR(LoadEnds());
    for (size_t i = 0; i < shard_.layers.size(); ++i) {
      const size_t layer = shard_.layer_begin + i;
      ASSIGN_OR_RETURN(LayerWeights weights, LoadLayer(layer, shard_.layers[i]));
      weights_.layers.push_back(std::move(weights));
    }
    return OkStatus();
  }

  // What stands before the first layer and after the last.
  Status LoadEnds() {
    const Extent all = {0, config_.vocab_size};
    if (plan_.whole()) {
      ASSIGN_OR_RETURN(weights_.embedding, LoadRows("embedding", all, all.count));
    } else if (shard_.first_stage) {
      ASSIGN_OR_RETURN(weights_.embedding, OpenTable("embedding"));
    }
    if (shard_.first_stage && config_.embedding_norm_eps > 0.0) {
      ASSIGN_OR_RETURN(weights_.embedding_norm, Constant(1.0F, config_.hidden_dim));
    }
    if (!shard_.last_stage) return OkStatus();
    ASSIGN_OR_RETURN(weights_.output_norm,
                     LoadNorm("output_norm", config_.hidden_dim, config_.centred_final_norm));
    if (plan_.whole() && config_.tied_embeddings) return OkStatus();
    ASSIGN_OR_RETURN(weights_.output,
                     LoadRows(config_.tied_embeddings ? "embedding" : "output",
                              {shard_.vocab_begin, shard_.vocab_rows()}, all.count));
    return OkStatus();
  }

  Result<LayerWeights> LoadLayer(size_t index, const LayerShard& shard) {
    const std::string prefix = "layers." + std::to_string(index) + ".";
    const LayerSpec& spec = config_.layers[index];
    const uint32_t hidden = config_.hidden_dim;
    LayerWeights layer;
    RETURN_IF_ERROR(LoadNorms(prefix, spec, layer));
    if (spec.experts > 0) {
      ASSIGN_OR_RETURN(layer.router, LoadRows(prefix + "router", {0, spec.experts}, spec.experts));
    }
    for (const AttentionPart& part : shard.attention) {
      ASSIGN_OR_RETURN(AttentionWeights weights, LoadAttention(prefix, spec, part));
      layer.attention.push_back(std::move(weights));
    }
    for (const FeedForwardPart& part : shard.feed_forward) {
      ASSIGN_OR_RETURN(FeedForwardWeights weights, spec.experts > 0
                                                       ? LoadExperts(prefix, spec, part)
                                                       : LoadFeedForward(prefix, spec, part));
      layer.feed_forward.push_back(std::move(weights));
    }
    if (spec.output_bias) {
      ASSIGN_OR_RETURN(layer.o_bias, LoadVector(prefix + "o_bias", hidden));
    }
    if (spec.mlp_bias) {
      ASSIGN_OR_RETURN(layer.down_bias, LoadVector(prefix + "down_bias", hidden));
    }
    return layer;
  }

  Status LoadNorms(const std::string& prefix, const LayerSpec& spec, LayerWeights& layer) {
    const uint32_t hidden = config_.hidden_dim, head = spec.head_dim;
    const bool centred = spec.centred_norms;
    ASSIGN_OR_RETURN(layer.attention_norm, LoadNorm(prefix + "attention_norm", hidden, centred));
    ASSIGN_OR_RETURN(layer.ffn_norm, LoadNorm(prefix + "ffn_norm", hidden, centred));
    if (spec.post_norms) {
      ASSIGN_OR_RETURN(layer.post_attention_norm,
                       LoadNorm(prefix + "post_attention_norm", hidden, centred));
      ASSIGN_OR_RETURN(layer.post_ffn_norm, LoadNorm(prefix + "post_ffn_norm", hidden, centred));
    }
    const auto scale = static_cast<float>(spec.query_scale);
    if (spec.head_norm == HeadNorm::kWeighted) {
      ASSIGN_OR_RETURN(layer.q_norm, LoadNorm(prefix + "q_norm", head, centred, scale));
      ASSIGN_OR_RETURN(layer.k_norm, LoadNorm(prefix + "k_norm", head, centred));
    } else if (spec.head_norm == HeadNorm::kPlain) {
      ASSIGN_OR_RETURN(layer.q_norm, Constant(scale, head));
      ASSIGN_OR_RETURN(layer.k_norm, Constant(1.0F, head));
    }
    return OkStatus();
  }

  Result<AttentionWeights> LoadAttention(const std::string& prefix, const LayerSpec& spec,
                                         const AttentionPart& part) {
    const uint32_t head = spec.head_dim;
    const uint64_t query_rows = uint64_t{spec.query_heads} * head;
    const uint64_t kv_rows = uint64_t{spec.kv_heads} * head;
    const Extent query = {uint64_t{part.query_begin} * head, uint64_t{part.query_heads} * head};
    const Extent kv = {uint64_t{part.kv_begin} * head, uint64_t{part.kv_heads} * head};
    AttentionWeights weights;
    ASSIGN_OR_RETURN(weights.q, LoadRows(prefix + "q", query, query_rows));
    ASSIGN_OR_RETURN(weights.k, LoadRows(prefix + "k", kv, kv_rows));
    ASSIGN_OR_RETURN(weights.v, LoadRows(prefix + "v", kv, kv_rows));
    ASSIGN_OR_RETURN(weights.o,
                     LoadColumns(prefix + "o", query, query_rows, part.segments.count()));
    if (spec.output_gate) {
      ASSIGN_OR_RETURN(weights.gate, LoadRows(prefix + "output_gate", query, query_rows));
    }
    if (!spec.attention_bias) return weights;
    ASSIGN_OR_RETURN(weights.q_bias, LoadElements(prefix + "q_bias", query, query_rows));
    ASSIGN_OR_RETURN(weights.k_bias, LoadElements(prefix + "k_bias", kv, kv_rows));
    ASSIGN_OR_RETURN(weights.v_bias, LoadElements(prefix + "v_bias", kv, kv_rows));
    return weights;
  }

  Result<FeedForwardWeights> LoadFeedForward(const std::string& prefix, const LayerSpec& spec,
                                             const FeedForwardPart& part) {
    const Extent columns = {part.column_begin, part.columns};
    FeedForwardWeights weights;
    ASSIGN_OR_RETURN(weights.gate, LoadRows(prefix + "gate", columns, spec.ffn_dim));
    ASSIGN_OR_RETURN(weights.up, LoadRows(prefix + "up", columns, spec.ffn_dim));
    ASSIGN_OR_RETURN(weights.down,
                     LoadColumns(prefix + "down", columns, spec.ffn_dim, part.segments.count()));
    if (!spec.mlp_bias) return weights;
    ASSIGN_OR_RETURN(weights.gate_bias, LoadElements(prefix + "gate_bias", columns, spec.ffn_dim));
    ASSIGN_OR_RETURN(weights.up_bias, LoadElements(prefix + "up_bias", columns, spec.ffn_dim));
    return weights;
  }

  Result<FeedForwardWeights> LoadExperts(const std::string& prefix, const LayerSpec& spec,
                                         const FeedForwardPart& part) {
    FeedForwardWeights weights;
    for (uint32_t e = part.expert_begin; e < part.expert_begin + part.experts; ++e) {
      const std::string expert = prefix + "experts." + std::to_string(e) + ".";
      ASSIGN_OR_RETURN(FeedForwardWeights one,
                       LoadFeedForward(expert, spec, {0, spec.ffn_dim, {0, 1}}));
      weights.experts.push_back(std::move(one));
    }
    return weights;
  }

  Result<TensorView> Find(const std::string& name, uint64_t rows, uint64_t columns) {
    ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_.Tensor(name));
    if (tensor.rank != 2 || tensor.dim(0) != rows || tensor.dim(1) != columns)
      return WrongShape(name, tensor, std::to_string(rows) + ", " + std::to_string(columns));
    return tensor;
  }

  // Rows `rows` of a matrix of `rows_all` rows over the hidden size.
  Result<std::unique_ptr<Matrix>> LoadRows(const std::string& name, const Extent& rows,
                                           uint64_t rows_all) {
    ASSIGN_OR_RETURN(const TensorView tensor, Find(name, rows_all, config_.hidden_dim));
    // A row that is not whole blocks is refused by Prepare, and cannot be sliced.
    const bool sliced = tensor.dim(1) % Traits(tensor.dtype).block_values == 0;
    const TensorView slice = sliced ? Slice(tensor, rows) : tensor;
    if (counting_) return Count(slice.bytes());
    return Done(name, ops_.Prepare(slice, 1), slice);
  }

  // Columns `columns` of a matrix [hidden, columns_all].
  Result<std::unique_ptr<Matrix>> LoadColumns(const std::string& name, const Extent& columns,
                                              uint64_t columns_all, uint32_t segments) {
    ASSIGN_OR_RETURN(const TensorView tensor, Find(name, config_.hidden_dim, columns_all));
    if (counting_) return Count(tensor.bytes() / columns_all * columns.count);
    if (columns.count == columns_all) return Done(name, ops_.Prepare(tensor, segments), tensor);
    const ColumnRange range = {static_cast<uint32_t>(columns.begin),
                               static_cast<uint32_t>(columns.count)};
    return Done(name, ops_.PrepareColumns(tensor, range, segments), tensor);
  }

  Result<std::unique_ptr<Matrix>> OpenTable(const std::string& name) {
    ASSIGN_OR_RETURN(const TensorView tensor, Find(name, config_.vocab_size, config_.hidden_dim));
    auto table = ops_.PrepareTable(tensor);
    if (!table.ok()) return table.status().WithContext("tensor " + name);
    return table;
  }

  // A norm's weight, as it is multiplied with: 1 + weight if it is centred, times `scale`.
  Result<WeightVector> LoadNorm(const std::string& name, uint64_t size, bool centred,
                                float scale = 1.0F) {
    if (!centred && scale == 1.0F) return LoadVector(name, size);
    ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_.Tensor(name));
    if (tensor.rank != 1 || tensor.dim(0) != size)
      return WrongShape(name, tensor, std::to_string(size));
    if (counting_) {
      bytes_total_ += tensor.bytes();
      return WeightVector();
    }
    std::vector<float> values(size);
    RETURN_IF_ERROR(DequantizeRow(tensor.dtype, tensor.data, size, values.data()));
    for (float& value : values) value = ((centred ? 1.0F : 0.0F) + value) * scale;
    Report(tensor.bytes());
    checkpoint_.Release(tensor);
    return Prepared(name, values);
  }

  Result<WeightVector> Constant(float value, uint64_t size) {
    if (counting_) return WeightVector();
    return Prepared("", std::vector<float>(size, value));
  }

  Result<WeightVector> Prepared(const std::string& name, const std::vector<float>& values) {
    TensorView view = {reinterpret_cast<const std::byte*>(values.data()), DType::kF32, 1, {}};
    view.shape = {values.size(), 1, 1, 1};
    auto vector = ops_.PrepareVector(view);
    if (!vector.ok()) return vector.status().WithContext("tensor " + name);
    weights_.bytes += vector->size();
    return WeightVector(std::move(vector).value());
  }

  Result<WeightVector> LoadVector(const std::string& name, uint64_t size) {
    return LoadElements(name, {0, size}, size);
  }

  Result<WeightVector> LoadElements(const std::string& name, const Extent& elements,
                                    uint64_t size) {
    ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_.Tensor(name));
    if (tensor.rank != 1 || tensor.dim(0) != size)
      return WrongShape(name, tensor, std::to_string(size));
    if (elements.count != size && IsQuantized(tensor.dtype))
      return InvalidArgument("tensor " + name + ": a quantised vector cannot be divided");
    const TensorView slice = Slice(tensor, elements);
    if (counting_) {
      bytes_total_ += slice.bytes();
      return WeightVector();
    }
    auto vector = ops_.PrepareVector(slice);
    if (!vector.ok()) return vector.status().WithContext("tensor " + name);
    weights_.bytes += vector->size();
    Report(slice.bytes());
    checkpoint_.Release(slice);
    return WeightVector(std::move(vector).value());
  }

  std::unique_ptr<Matrix> Count(uint64_t bytes) {
    bytes_total_ += bytes;
    return nullptr;
  }

  Result<std::unique_ptr<Matrix>> Done(const std::string& name,
                                       Result<std::unique_ptr<Matrix>> matrix,
                                       const TensorView& read) {
    if (!matrix.ok()) return matrix.status().WithContext("tensor " + name);
    weights_.bytes += (*matrix)->bytes();
    const DTypeTraits traits = Traits((*matrix)->dtype());
    Report(uint64_t{(*matrix)->rows()} * (*matrix)->columns() / traits.block_values *
           traits.block_bytes);
    checkpoint_.Release(read);
    return matrix;
  }

  void Report(uint64_t bytes) {
    bytes_done_ += bytes;
    if (progress_) progress_(std::min(bytes_done_, bytes_total_), bytes_total_);
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  Ops& ops_;
  const ShardPlan& plan_;
  const RankShard& shard_;
  const LoadProgress& progress_;
  ModelWeights weights_;
  bool counting_ = false;
  uint64_t bytes_done_ = 0;
  uint64_t bytes_total_ = 0;
};

}  // namespace

WeightSummary SummariseWeights(const Checkpoint& checkpoint) {
  WeightSummary summary;
  for (const std::string& name : checkpoint.TensorNames()) {
    const auto tensor = checkpoint.Tensor(name);
    if (!tensor.ok()) continue;
    summary.parameter_count += tensor->count();
    if (tensor->rank == 2) summary.matrix_dtypes.insert(tensor->dtype);
  }
  return summary;
}

Result<ModelWeights> LoadWeights(const Checkpoint& checkpoint, Ops& ops, const ShardPlan& plan,
                                 uint32_t rank, const LoadProgress& progress) {
  return WeightLoader(checkpoint, ops, plan, rank, progress).Load();
}

}  // namespace muselet
