// The forward pass of a decoder over Ops: pre-norm attention and gated feed-forward layers, as
// LayerSpec describes them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/device/ops.h"
#include "node/model/checkpoint.h"
#include "node/model/kv_cache.h"
#include "node/model/load_model.h"
#include "node/model/model.h"
#include "node/model/weights.h"

namespace muselet {

// Owns weights, KV cache and scratch memory. After the first step of the largest size, Forward
// allocates nothing.
class Transformer final : public Model {
 public:
  // Faults as LoadModel.
  static Result<std::unique_ptr<Transformer>> Create(const Checkpoint& checkpoint,
                                                     const EngineOptions& options,
                                                     std::unique_ptr<Ops> ops,
                                                     const LoadProgress& progress);

  const ModelInfo& info() const override { return info_; }
  Result<std::span<const float>> Forward(const StepPlan& plan) override;

 private:
  // The activations of a step, in one allocation; letters as in base/device/ops.h.
  struct Scratch {
    DeviceBuffer buffer;
    uint32_t rows = 0;          // capacity
    float* hidden = nullptr;    // [M, C] the residual
    float* normed = nullptr;    // [M, C]
    float* q = nullptr;         // [M, H * D]
    float* k = nullptr;         // [M, G * D]
    float* v = nullptr;         // [M, G * D]
    float* attended = nullptr;  // [M, H * D]
    float* gate = nullptr;      // [M, F]
    float* up = nullptr;        // [M, F]
  };
  // The angles of the step's rows for one kind of rotation.
  struct Rotation {
    RopeSpec spec;
    std::vector<float> frequencies;
    DeviceBuffer cosine, sine;  // [M, rotary_dim / 2]
  };

  Transformer(const Checkpoint& checkpoint, std::unique_ptr<Ops> ops, ModelWeights weights,
              KvCache cache);
  void DescribeModel(const Checkpoint& checkpoint, const EngineOptions& options, DType kv_dtype);
  void MapRotations();
  Status Reserve(uint32_t rows);
  Status ReserveLogits(uint32_t rows);
  void PlaceRows(const StepPlan& plan);
  void AttentionPart(size_t index, uint32_t rows);
  void FeedForwardPart(size_t index, uint32_t rows);

  ModelConfig config_;
  std::unique_ptr<Ops> ops_;
  ModelWeights weights_;
  KvCache cache_;
  ModelInfo info_;
  std::vector<Rotation> rotations_;
  std::vector<size_t> rotation_of_layer_;

  // Of the current step.
  Scratch scratch_;
  DeviceBuffer logits_;
  uint32_t logits_rows_max_ = 0;               // capacity
  std::vector<std::vector<RowPlace>> places_;  // one a KV group
  std::vector<uint32_t> logits_rows_;          // row numbers
  std::span<const BlockId> tables_;
};

}  // namespace muselet
