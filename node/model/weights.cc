#include "node/model/weights.h"

#include <algorithm>
#include <string>

namespace muselet {
namespace {

constexpr uint32_t kFfnGroups = 8;
constexpr uint32_t kSegmentsMax = 64;
constexpr uint32_t kSegmentColumns = 32;

class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, Ops& ops, const LoadProgress& progress)
      : checkpoint_(checkpoint), ops_(ops), progress_(progress) {
    for (const std::string& name : checkpoint.TensorNames()) {
      const auto tensor = checkpoint.Tensor(name);
      if (tensor.ok()) bytes_total_ += tensor->bytes();
    }
  }

  Result<ModelWeights> Load() {
    const ModelConfig& config = checkpoint_.config();
    ASSIGN_OR_RETURN(weights_.embedding,
                     LoadMatrix("embedding", config.vocab_size, config.hidden_dim, 1));
    ASSIGN_OR_RETURN(weights_.output_norm, LoadVector("output_norm", config.hidden_dim));
    if (!config.tied_embeddings) {
      ASSIGN_OR_RETURN(weights_.output,
                       LoadMatrix("output", config.vocab_size, config.hidden_dim, 1));
    }
    for (size_t i = 0; i < config.layers.size(); ++i) {
      ASSIGN_OR_RETURN(LayerWeights layer, LoadLayer("layers." + std::to_string(i) + ".",
                                                     config.layers[i], config.hidden_dim));
      weights_.layers.push_back(std::move(layer));
    }
    return std::move(weights_);
  }

 private:
  Result<LayerWeights> LoadLayer(const std::string& prefix, const LayerSpec& spec,
                                 uint32_t hidden) {
    const uint32_t query = spec.query_heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim;
    LayerWeights layer;
    ASSIGN_OR_RETURN(layer.attention_norm, LoadVector(prefix + "attention_norm", hidden));
    ASSIGN_OR_RETURN(layer.q, LoadMatrix(prefix + "q", query, hidden, 1));
    ASSIGN_OR_RETURN(layer.k, LoadMatrix(prefix + "k", kv, hidden, 1));
    ASSIGN_OR_RETURN(layer.v, LoadMatrix(prefix + "v", kv, hidden, 1));
    ASSIGN_OR_RETURN(layer.o, LoadMatrix(prefix + "o", hidden, query, spec.kv_heads));
    ASSIGN_OR_RETURN(layer.ffn_norm, LoadVector(prefix + "ffn_norm", hidden));
    ASSIGN_OR_RETURN(layer.gate, LoadMatrix(prefix + "gate", spec.ffn_dim, hidden, 1));
    ASSIGN_OR_RETURN(layer.up, LoadMatrix(prefix + "up", spec.ffn_dim, hidden, 1));
    ASSIGN_OR_RETURN(layer.down, LoadMatrix(prefix + "down", hidden, spec.ffn_dim, kFfnGroups));
    if (spec.attention_bias) {
      ASSIGN_OR_RETURN(layer.q_bias, LoadVector(prefix + "q_bias", query));
      ASSIGN_OR_RETURN(layer.k_bias, LoadVector(prefix + "k_bias", kv));
      ASSIGN_OR_RETURN(layer.v_bias, LoadVector(prefix + "v_bias", kv));
      // Some families have biases on q, k and v only.
      if (checkpoint_.Tensor(prefix + "o_bias").ok()) {
        ASSIGN_OR_RETURN(layer.o_bias, LoadVector(prefix + "o_bias", hidden));
      }
    }
    if (spec.mlp_bias) {
      ASSIGN_OR_RETURN(layer.gate_bias, LoadVector(prefix + "gate_bias", spec.ffn_dim));
      ASSIGN_OR_RETURN(layer.up_bias, LoadVector(prefix + "up_bias", spec.ffn_dim));
      ASSIGN_OR_RETURN(layer.down_bias, LoadVector(prefix + "down_bias", hidden));
    }
    return layer;
  }

  Result<std::unique_ptr<Matrix>> LoadMatrix(const std::string& name, uint32_t rows,
                                             uint32_t columns, uint32_t groups) {
    ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_.Tensor(name));
    if (tensor.rank != 2 || tensor.dim(0) != rows || tensor.dim(1) != columns) {
      return InvalidArgument("tensor " + name + " is " + tensor.ToString() +
                             ", the model's config asks for [" + std::to_string(rows) + ", " +
                             std::to_string(columns) + "]");
    }
    auto matrix = ops_.Prepare(tensor, SegmentCount(columns, groups));
    if (!matrix.ok()) return matrix.status().WithContext("tensor " + name);
    weights_.bytes += (*matrix)->bytes();
    weights_.matrix_dtypes.insert(tensor.dtype);
    Done(tensor);
    return matrix;
  }

  Result<WeightVector> LoadVector(const std::string& name, uint32_t size) {
    ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_.Tensor(name));
    if (tensor.rank != 1 || tensor.dim(0) != size) {
      return InvalidArgument("tensor " + name + " is " + tensor.ToString() +
                             ", the model's config asks for [" + std::to_string(size) + "]");
    }
    auto vector = ops_.PrepareVector(tensor);
    if (!vector.ok()) return vector.status().WithContext("tensor " + name);
    weights_.bytes += vector->size();
    Done(tensor);
    return WeightVector(std::move(vector).value());
  }

  void Done(const TensorView& tensor) {
    weights_.parameter_count += tensor.count();
    bytes_done_ += tensor.bytes();
    checkpoint_.Release(tensor);
    if (progress_) progress_(bytes_done_, bytes_total_);
  }

  const Checkpoint& checkpoint_;
  Ops& ops_;
  const LoadProgress& progress_;
  ModelWeights weights_;
  uint64_t bytes_done_ = 0;
  uint64_t bytes_total_ = 0;
};

}  // namespace

uint32_t SegmentCount(uint32_t columns, uint32_t groups) {
  for (uint32_t count = std::min(groups, kSegmentsMax); count > 1; --count) {
    if (groups % count == 0 && columns % (count * kSegmentColumns) == 0) return count;
  }
  return 1;
}

Result<ModelWeights> LoadWeights(const Checkpoint& checkpoint, Ops& ops,
                                 const LoadProgress& progress) {
  return WeightLoader(checkpoint, ops, progress).Load();
}

}  // namespace muselet
