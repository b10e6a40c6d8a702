// The forward pass of a decoder over Ops: attention and gated feed-forward layers, as LayerSpec
// describes them; of the whole model, or of one rank's slice.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/device/ops.h"
#include "node/model/checkpoint.h"
#include "node/model/kv_cache.h"
#include "node/model/load_model.h"
#include "node/model/rank_exchange.h"
#include "node/model/rank_model.h"
#include "node/model/shard_plan.h"
#include "node/model/weights.h"

namespace muselet {

// Owns weights, KV cache and scratch memory. After the first step of the largest size, Forward
// allocates nothing.
class Transformer final : public RankModel {
 public:
  // The whole model. Faults as LoadModel.
  static Result<std::unique_ptr<Transformer>> Create(const Checkpoint& checkpoint,
                                                     const EngineOptions& options,
                                                     std::unique_ptr<Ops> ops,
                                                     const LoadProgress& progress);
  // One rank's slice, as LoadRankModel. The checkpoint must stay, unless the plan is of one rank.
  // `message_bytes_max` bounds what is exchanged at once, the same on every rank.
  static Result<std::unique_ptr<Transformer>> CreateRank(
      const Checkpoint& checkpoint, const EngineOptions& options, std::unique_ptr<Ops> ops,
      ShardPlan plan, uint32_t rank, const LoadProgress& progress,
      size_t message_bytes_max = kMessageBytesMax);

  const ModelInfo& info() const override { return info_; }
  Result<std::span<const float>> Forward(const StepPlan& plan) override;
  void Connect(const RankLinks& links) override;
  void SetDeadline(int64_t deadline_us) override { exchange_.SetDeadline(deadline_us); }
  int64_t waited_us() const override { return exchange_.waited_us(); }
  const RankShard& shard() const override { return shard_; }

 private:
  // The activations of a step, in one allocation; letters as in base/device/ops.h. The parts of a
  // layer stand behind one another.
  struct Scratch {
    DeviceBuffer buffer;
    uint32_t rows = 0;             // capacity
    float* hidden = nullptr;       // [M, C] the residual
    float* normed = nullptr;       // [M, C]
    float* q = nullptr;            // [M, H * D]
    float* k = nullptr;            // [M, G * D]
    float* v = nullptr;            // [M, G * D]
    float* attended = nullptr;     // [M, H * D]
    float* gate = nullptr;         // [M, F]; of experts, [M * choices, F]
    float* up = nullptr;           // the same
    float* output_gate = nullptr;  // [M, H * D]
    float* scores = nullptr;       // [M, E]
    float* down = nullptr;         // [M * choices, C]
  };
  // The angles of the step's rows for one kind of rotation.
  struct Rotation {
    RopeSpec spec;
    std::vector<float> frequencies;
    DeviceBuffer cosine, sine;  // [M, rotary_dim / 2]
  };
  // How the products of a layer are added up over the ranks.
  struct LayerOrder {
    PartialOrder attention, feed_forward;
  };

  Transformer(const Checkpoint& checkpoint, std::unique_ptr<Ops> ops, ShardPlan plan, uint32_t rank,
              ModelWeights weights, KvCache cache, size_t message_bytes_max);
  void MapRotations();
  void OrderPartials();
  void ListExperts();
  Status Reserve(uint32_t rows);
  Status ReserveLogits(uint32_t rows);
  void PlaceRows(const StepPlan& plan);
  Result<std::span<const float>> Logits(uint32_t rows);
  void Embed(const StepPlan& plan);
  Status AttentionPart(size_t index, uint32_t rows);
  void ProjectInputs(size_t index, uint32_t rows);
  Status ProjectAttended(size_t index, uint32_t rows);
  Status FeedForwardPart(size_t index, uint32_t rows);
  void Activate(const LayerSpec& spec, Rows gate, Rows up, const MatMulTarget& down);
  Status ProjectGated(size_t index, uint32_t rows);
  Status ExpertsPart(size_t index, uint32_t rows);
  Rows BeginResult(const LayerSpec& spec, uint32_t rows);
  void EndResult(const LayerSpec& spec, const WeightVector& norm, Rows result);
  const LayerSpec& layer(size_t index) const { return config_.layers[shard_.layer_begin + index]; }
  Rows Hidden(uint32_t rows) const { return {scratch_.hidden, rows, config_.hidden_dim}; }

  ModelConfig config_;
  std::unique_ptr<Ops> ops_;
  const ShardPlan plan_;
  const RankShard& shard_;
  ModelWeights weights_;
  KvCache cache_;
  RankExchange exchange_;
  ModelInfo info_;
  std::vector<Rotation> rotations_;
  // Layers count from the rank's first.
  std::vector<size_t> rotation_of_layer_;
  std::vector<LayerOrder> orders_;  // empty if the stage is one rank
  uint32_t slots_max_ = 1;
  std::vector<std::vector<std::vector<ExpertWeights>>> experts_;  // [layer][part][expert]

  // Of the current step.
  Scratch scratch_;
  DeviceBuffer logits_;
  uint32_t logits_rows_max_ = 0;               // capacity
  std::vector<std::vector<RowPlace>> places_;  // one a KV group
  std::vector<uint32_t> logits_rows_;          // row numbers
  std::span<const BlockId> tables_;
  std::vector<MatMulTarget> targets_;
  std::vector<ExpertPart> expert_parts_;
};

}  // namespace muselet
