// The weights of a decoder, prepared for a backend.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "base/device/ops.h"
#include "node/model/checkpoint.h"
#include "node/model/load_model.h"

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

struct LayerWeights {
  WeightVector attention_norm;       // [C]
  std::unique_ptr<Matrix> q, k, v;   // [H * D, C], [G * D, C] twice
  std::unique_ptr<Matrix> o;         // [C, H * D]
  WeightVector ffn_norm;             // [C]
  std::unique_ptr<Matrix> gate, up;  // [F, C]
  std::unique_ptr<Matrix> down;      // [C, F]
  WeightVector q_bias, k_bias, v_bias, o_bias;
  WeightVector gate_bias, up_bias, down_bias;
};

struct ModelWeights {
  std::unique_ptr<Matrix> embedding;  // [V, C]; serves as the head too if `output` is null
  std::vector<LayerWeights> layers;
  WeightVector output_norm;        // [C]
  std::unique_ptr<Matrix> output;  // [V, C] or null

  uint64_t bytes = 0;  // of device memory
  uint64_t parameter_count = 0;
  std::set<DType> matrix_dtypes;  // what the matrices were made from

  const Matrix& head() const { return output != nullptr ? *output : *embedding; }
};

// Into how many segments the sum over `columns` is cut, if `groups` would be best: the largest
// divisor of `groups` that gives whole blocks of 32 columns. It depends on the model only, so that
// every way of sharding gives the same bits.
uint32_t SegmentCount(uint32_t columns, uint32_t groups);

// Prepares every tensor and tells the checkpoint that the file's pages are no longer needed. Faults
// name the tensor: missing, of a shape that the config contradicts, or of a dtype that cannot be
// computed.
Result<ModelWeights> LoadWeights(const Checkpoint& checkpoint, Ops& ops,
                                 const LoadProgress& progress);

}  // namespace muselet
