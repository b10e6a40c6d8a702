// The weights of a decoder that a rank holds, prepared for a backend.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/device/ops.h"
#include "node/model/checkpoint.h"
#include "node/model/load_model.h"
#include "node/model/shard_plan.h"

namespace muselet {

// A vector of f32 in device memory; empty if the model has none.
class WeightVector {
 public:
  WeightVector() = default;
  explicit WeightVector(DeviceBuffer buffer) : buffer_(std::move(buffer)) {}
  // Null if empty.
  const float* data() const { return reinterpret_cast<const float*>(buffer_.data()); }

 private:
  DeviceBuffer buffer_;
};

// Of an AttentionPart with h query and g key/value heads; letters as in base/device/ops.h.
struct AttentionWeights {
  std::unique_ptr<Matrix> q, k, v;  // [h * D, C], [g * D, C] twice
  std::unique_ptr<Matrix> o;        // [C, h * D]
  std::unique_ptr<Matrix> gate;     // [h * D, C] of attention's result, or null
  WeightVector q_bias, k_bias, v_bias;
};

// Of a FeedForwardPart with f columns, or of one of its experts.
struct FeedForwardWeights {
  std::unique_ptr<Matrix> gate, up;  // [f, C]
  std::unique_ptr<Matrix> down;      // [C, f]
  WeightVector gate_bias, up_bias;
  std::vector<FeedForwardWeights> experts;  // instead of the matrices above
};

struct LayerWeights {
  WeightVector attention_norm;              // [C]
  WeightVector q_norm, k_norm;              // [D] or empty; the queries' has their scale
  std::vector<AttentionWeights> attention;  // parallel to LayerShard
  WeightVector o_bias;                      // [C]
  WeightVector post_attention_norm;         // [C] or empty
  WeightVector ffn_norm;                    // [C]
  std::unique_ptr<Matrix> router;           // [E, C] or null
  std::vector<FeedForwardWeights> feed_forward;
  WeightVector down_bias;      // [C]
  WeightVector post_ffn_norm;  // [C] or empty
};

struct ModelWeights {
  // [V, C] on the first stage. Of a whole model it is repacked and serves as the head too if
  // `output` is null; otherwise its rows are taken from the checkpoint, which must stay.
  std::unique_ptr<Matrix> embedding;
  WeightVector embedding_norm;  // [C] ones, or empty
  std::vector<LayerWeights> layers;
  WeightVector output_norm;        // [C] on the last stage
  std::unique_ptr<Matrix> output;  // the rank's rows of the head [V, C], on the last stage

  uint64_t bytes = 0;  // of device memory

  const Matrix& head() const { return output != nullptr ? *output : *embedding; }
};

// What a numerics id and a ModelInfo say of all weights of a model.
struct WeightSummary {
  uint64_t parameter_count = 0;
  std::set<DType> matrix_dtypes;
};
WeightSummary SummariseWeights(const Checkpoint& checkpoint);

// Prepares what the rank holds and tells the checkpoint that those pages of the file are no longer
// needed; nothing else is read. Faults name the tensor: missing, of a shape that the config
// contradicts, or of a dtype that cannot be computed. REQUIRES: the plan is of this checkpoint.
Result<ModelWeights> LoadWeights(const Checkpoint& checkpoint, Ops& ops, const ShardPlan& plan,
                                 uint32_t rank, const LoadProgress& progress);

}  // namespace muselet
