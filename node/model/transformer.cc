#include "node/model/transformer.h"

#include <algorithm>

#include "node/model/model_info.h"
#include "node/model/rope_table.h"
#include "node/model/step_widths.h"

namespace muselet {
namespace {

float* Floats(const DeviceBuffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

// The digest took samples all over the file.
void ReleaseAll(const Checkpoint& checkpoint) {
  for (const std::string& name : checkpoint.TensorNames())
    if (const auto tensor = checkpoint.Tensor(name); tensor.ok()) checkpoint.Release(*tensor);
}

}  // namespace

Result<std::unique_ptr<Transformer>> Transformer::Create(const Checkpoint& checkpoint,
                                                         const EngineOptions& options,
                                                         std::unique_ptr<Ops> ops,
                                                         const LoadProgress& progress) {
  RETURN_IF_ERROR(CheckComputable(checkpoint.config()));
  ASSIGN_OR_RETURN(ShardPlan plan, MakeShardPlan(checkpoint, ShardSpec()));
  return CreateRank(checkpoint, options, std::move(ops), std::move(plan), 0, progress);
}

Result<std::unique_ptr<Transformer>> Transformer::CreateRank(
    const Checkpoint& checkpoint, const EngineOptions& options, std::unique_ptr<Ops> ops,
    ShardPlan plan, uint32_t rank, const LoadProgress& progress, size_t message_bytes_max) {
  const ModelConfig& config = checkpoint.config();
  RETURN_IF_ERROR(CheckComputable(config));
  CHECK(rank < plan.rank_count() && plan.segments.size() == config.layers.size(),
        "the plan is of another model");
  ASSIGN_OR_RETURN(KvCache cache, KvCache::Create(config, plan, rank, options, *ops));
  ASSIGN_OR_RETURN(ModelWeights weights, LoadWeights(checkpoint, *ops, plan, rank, progress));
  std::unique_ptr<Transformer> model(new Transformer(checkpoint, std::move(ops), std::move(plan),
                                                     rank, std::move(weights), std::move(cache),
                                                     message_bytes_max));
  model->info_ = DescribeModel(checkpoint, options, model->cache_.groups(), *model->ops_);
  ReleaseAll(checkpoint);
  model->info_.weight_bytes = model->weights_.bytes;
  model->info_.kv_bytes = model->cache_.bytes();
  model->MapRotations();
  model->OrderPartials();
  model->ListExperts();
  RETURN_IF_ERROR(model->Reserve(std::max(1U, options.batch.step_tokens_max)));
  RETURN_IF_ERROR(model->ReserveLogits(std::max(1U, options.batch.sequences_max)));
  return model;
}

Transformer::Transformer(const Checkpoint& checkpoint, std::unique_ptr<Ops> ops, ShardPlan plan,
                         uint32_t rank, ModelWeights weights, KvCache cache,
                         size_t message_bytes_max)
    : config_(checkpoint.config()),
      ops_(std::move(ops)),
      plan_(std::move(plan)),
      shard_(plan_.ranks[rank]),
      weights_(std::move(weights)),
      cache_(std::move(cache)),
      exchange_(plan_, rank, config_.hidden_dim, config_.vocab_size, message_bytes_max),
      places_(cache_.groups().size()) {}

void Transformer::Connect(const RankLinks& links) {
  CHECK((plan_.tensor == 1 || links.tensor != nullptr) &&
            (shard_.first_stage || links.previous != nullptr) &&
            (shard_.last_stage || links.next != nullptr),
        "a rank lacks a link that its plan asks for");
  exchange_.Connect(links);
}

void Transformer::MapRotations() {
  for (size_t i = 0; i < shard_.layers.size(); ++i) {
    const RopeSpec& rope = layer(i).rope;
    size_t index = 0;
    while (index < rotations_.size() && !SameAngles(rotations_[index].spec, rope)) ++index;
    if (index == rotations_.size()) {
      Rotation rotation;
      rotation.spec = rope;
      rotation.frequencies = RopeFrequencies(rope);
      rotations_.push_back(std::move(rotation));
    }
    rotation_of_layer_.push_back(index);
  }
}

void Transformer::OrderPartials() {
  size_t parts_max = 0;
  for (size_t i = 0; i < shard_.layers.size(); ++i) {
    parts_max = std::max(parts_max, shard_.layers[i].attention.size() * 4);
    parts_max = std::max(parts_max, shard_.layers[i].feed_forward.size() * 2);
    if (plan_.tensor == 1) continue;
    const size_t index = shard_.layer_begin + i;
    orders_.push_back(
        {AttentionOrder(plan_, shard_.stage, index), FeedForwardOrder(plan_, shard_.stage, index)});
    slots_max_ =
        std::max({slots_max_, orders_.back().attention.slots, orders_.back().feed_forward.slots});
  }
  targets_.reserve(parts_max);
}

void Transformer::ListExperts() {
  size_t parts_max = 0;
  for (const LayerWeights& layer : weights_.layers) {
    std::vector<std::vector<ExpertWeights>>& parts = experts_.emplace_back();
    for (const FeedForwardWeights& part : layer.feed_forward) {
      std::vector<ExpertWeights>& experts = parts.emplace_back();
      for (const FeedForwardWeights& expert : part.experts)
        experts.push_back({expert.gate.get(), expert.up.get(), expert.down.get()});
    }
    parts_max = std::max(parts_max, parts.size());
  }
  expert_parts_.reserve(parts_max);
}

Status Transformer::Reserve(uint32_t rows) {
  if (rows <= scratch_.rows) return OkStatus();
  RETURN_IF_ERROR(exchange_.Reserve(*ops_, rows, slots_max_));
  const StepWidths widths = WidestOf(config_, shard_);
  const size_t hidden = config_.hidden_dim;
  Scratch scratch;
  ASSIGN_OR_RETURN(scratch.buffer,
                   ops_->Allocate(widths.RowValues(config_.hidden_dim) * rows * sizeof(float)));
  float* next = Floats(scratch.buffer);
  const auto take = [&](size_t width) { return std::exchange(next, next + width * rows); };
  scratch.rows = rows;
  scratch.hidden = take(hidden);
  scratch.normed = take(hidden);
  scratch.q = take(widths.query);
  scratch.k = take(widths.kv);
  scratch.v = take(widths.kv);
  scratch.attended = take(widths.query);
  scratch.gate = take(widths.ffn);
  scratch.up = take(widths.ffn);
  scratch.output_gate = take(widths.gate);
  scratch.scores = take(widths.scores);
  scratch.down = take(widths.down);
  for (Rotation& rotation : rotations_) {
    const size_t bytes = std::max<size_t>(1, rotation.frequencies.size()) * rows * sizeof(float);
    ASSIGN_OR_RETURN(rotation.cosine, ops_->Allocate(bytes));
    ASSIGN_OR_RETURN(rotation.sine, ops_->Allocate(bytes));
  }
  for (std::vector<RowPlace>& places : places_) places.reserve(rows);
  logits_rows_.reserve(rows);
  scratch_ = std::move(scratch);
  return OkStatus();
}

Status Transformer::ReserveLogits(uint32_t rows) {
  if (rows <= logits_rows_max_ || !shard_.last_stage) return OkStatus();
  RETURN_IF_ERROR(exchange_.ReserveLogits(*ops_, rows));
  if (shard_.tensor_rank == 0) {
    ASSIGN_OR_RETURN(logits_, ops_->Allocate(size_t{rows} * config_.vocab_size * sizeof(float)));
  }
  logits_rows_max_ = rows;
  return OkStatus();
}

void Transformer::PlaceRows(const StepPlan& plan) {
  logits_rows_.clear();
  tables_ = plan.block_tables;
  for (size_t group = 0; group < places_.size(); ++group) {
    places_[group].clear();
    for (const SequenceSlice& slice : plan.slices)
      for (uint32_t i = 0; i < slice.row_count; ++i)
        places_[group].push_back({slice.first_position + i, slice.table_begin[group]});
    CHECK(places_[group].size() == plan.tokens.size(), "a plan's slices do not cover its rows");
  }
  for (const SequenceSlice& slice : plan.slices)
    for (uint32_t i = slice.row_count - slice.logits_rows; i < slice.row_count; ++i)
      logits_rows_.push_back(slice.row_begin + i);
  for (Rotation& rotation : rotations_)
    FillRopeAngles(rotation.frequencies, places_[0], Floats(rotation.cosine),
                   Floats(rotation.sine));
}

}  // namespace muselet
