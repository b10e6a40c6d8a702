#include "node/model/transformer.h"

#include <algorithm>
#include <cmath>

#include "node/model/rope_table.h"

namespace muselet {
namespace {

Status CheckLayer(const LayerSpec& spec) {
  if (spec.kv_heads == 0 || spec.head_dim == 0 || spec.ffn_dim == 0 || spec.query_heads == 0)
    return InvalidArgument("a layer without heads or feed-forward columns cannot be computed");
  if (spec.query_heads % spec.kv_heads != 0) {
    return InvalidArgument(std::to_string(spec.query_heads) + " attention heads do not share " +
                           std::to_string(spec.kv_heads) + " key/value heads evenly");
  }
  const RopeSpec& rope = spec.rope;
  if (rope.rotary_dim % 2 != 0 || rope.rotary_dim > spec.head_dim)
    return InvalidArgument("rotary dimension " + std::to_string(rope.rotary_dim) +
                           " does not fit heads of " + std::to_string(spec.head_dim));
  if (!rope.frequency_divisors.empty() && rope.frequency_divisors.size() != rope.rotary_dim / 2)
    return InvalidArgument("rope_freqs does not have one value a rotated pair");
  return OkStatus();
}

DType KvDType(const EngineOptions& options) {
  if (options.kv.format == KvFormat::kFloat16) return DType::kF16;
  if (options.kv.format == KvFormat::kFloat32) return DType::kF32;
  return options.cpu.activations == ActivationFormat::kFloat32 ? DType::kF32 : DType::kF16;
}

float* Floats(const DeviceBuffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

}  // namespace

Result<std::unique_ptr<Transformer>> Transformer::Create(const Checkpoint& checkpoint,
                                                         const EngineOptions& options,
                                                         std::unique_ptr<Ops> ops,
                                                         const LoadProgress& progress) {
  const ModelConfig& config = checkpoint.config();
  if (config.layers.empty() || config.hidden_dim == 0 || config.vocab_size == 0)
    return InvalidArgument("a model without layers or vocabulary cannot be computed");
  for (const LayerSpec& spec : config.layers) RETURN_IF_ERROR(CheckLayer(spec));
  const DType kv_dtype = KvDType(options);
  ASSIGN_OR_RETURN(KvCache cache, KvCache::Create(config, options.kv, kv_dtype, *ops));
  ASSIGN_OR_RETURN(ModelWeights weights, LoadWeights(checkpoint, *ops, progress));
  std::unique_ptr<Transformer> model(
      new Transformer(checkpoint, std::move(ops), std::move(weights), std::move(cache)));
  model->DescribeModel(checkpoint, options, kv_dtype);
  model->MapRotations();
  RETURN_IF_ERROR(model->Reserve(std::max(1U, options.batch.step_tokens_max)));
  RETURN_IF_ERROR(model->ReserveLogits(std::max(1U, options.batch.sequences_max)));
  return model;
}

Transformer::Transformer(const Checkpoint& checkpoint, std::unique_ptr<Ops> ops,
                         ModelWeights weights, KvCache cache)
    : config_(checkpoint.config()),
      ops_(std::move(ops)),
      weights_(std::move(weights)),
      cache_(std::move(cache)),
      places_(cache_.groups().size()) {}

void Transformer::DescribeModel(const Checkpoint& checkpoint, const EngineOptions& options,
                                DType kv_dtype) {
  info_.architecture = config_.architecture;
  info_.model_digest = checkpoint.Digest();
  info_.vocab_size = config_.vocab_size;
  info_.context_tokens = options.context_tokens == 0
                             ? config_.context_tokens
                             : std::min(options.context_tokens, config_.context_tokens);
  info_.block_tokens = cache_.block_tokens();
  info_.kv_groups = cache_.groups();
  info_.weight_bytes = weights_.bytes;
  info_.kv_bytes = cache_.bytes();
  info_.parameter_count = weights_.parameter_count;

  std::string formats;
  bool quantized = false;
  for (const DType dtype : weights_.matrix_dtypes) {
    if (!formats.empty()) formats += '+';
    formats += Traits(dtype).name;
    quantized |= IsQuantized(dtype);
  }
  info_.numerics_id = ops_->LayoutName() + "/" + formats + "/" +
                      (quantized ? ops_->ActivationName() : "f32") + "/kv-" +
                      std::string(Traits(kv_dtype).name) + "/strict";
}

void Transformer::MapRotations() {
  for (const LayerSpec& layer : config_.layers) {
    size_t index = 0;
    while (index < rotations_.size() && !SameAngles(rotations_[index].spec, layer.rope)) ++index;
    if (index == rotations_.size()) {
      Rotation rotation;
      rotation.spec = layer.rope;
      rotation.frequencies = RopeFrequencies(layer.rope);
      rotations_.push_back(std::move(rotation));
    }
    rotation_of_layer_.push_back(index);
  }
}

Status Transformer::Reserve(uint32_t rows) {
  if (rows <= scratch_.rows) return OkStatus();
  size_t query = 0, kv = 0, ffn = 0;
  for (const LayerSpec& spec : config_.layers) {
    query = std::max<size_t>(query, size_t{spec.query_heads} * spec.head_dim);
    kv = std::max<size_t>(kv, size_t{spec.kv_heads} * spec.head_dim);
    ffn = std::max<size_t>(ffn, spec.ffn_dim);
  }
  const size_t hidden = config_.hidden_dim;
  Scratch scratch;
  ASSIGN_OR_RETURN(scratch.buffer, ops_->Allocate((2 * hidden + 2 * query + 2 * kv + 2 * ffn) *
                                                  rows * sizeof(float)));
  float* next = Floats(scratch.buffer);
  const auto take = [&](size_t width) { return std::exchange(next, next + width * rows); };
  scratch.rows = rows;
  scratch.hidden = take(hidden);
  scratch.normed = take(hidden);
  scratch.q = take(query);
  scratch.k = take(kv);
  scratch.v = take(kv);
  scratch.attended = take(query);
  scratch.gate = take(ffn);
  scratch.up = take(ffn);
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
  if (rows <= logits_rows_max_) return OkStatus();
  ASSIGN_OR_RETURN(logits_, ops_->Allocate(size_t{rows} * config_.vocab_size * sizeof(float)));
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

Result<std::span<const float>> Transformer::Forward(const StepPlan& plan) {
  const uint32_t rows = plan.row_count();
  RETURN_IF_ERROR(Reserve(rows));
  PlaceRows(plan);
  const auto outputs = static_cast<uint32_t>(logits_rows_.size());
  RETURN_IF_ERROR(ReserveLogits(outputs));
  ops_->Gather(*weights_.embedding, plan.tokens, {scratch_.hidden, rows, config_.hidden_dim});
  for (size_t layer = 0; layer < config_.layers.size(); ++layer) {
    AttentionPart(layer, rows);
    FeedForwardPart(layer, rows);
  }
  if (outputs == 0) return std::span<const float>();

  const Rows last = {scratch_.normed, outputs, config_.hidden_dim};
  ops_->SelectRows({scratch_.hidden, rows, config_.hidden_dim}, logits_rows_, last);
  ops_->RmsNorm(last, weights_.output_norm.data(), static_cast<float>(config_.final_norm_eps),
                last);
  const Rows logits = {Floats(logits_), outputs, config_.vocab_size};
  const MatMulTarget head = {&weights_.head(), nullptr, logits};
  ops_->MatMul(last, {&head, 1});
  return std::span<const float>(logits.data, size_t{outputs} * logits.width);
}

// hidden += attention of its norm.
void Transformer::AttentionPart(size_t index, uint32_t rows) {
  const LayerSpec& spec = config_.layers[index];
  const LayerWeights& weights = weights_.layers[index];
  const Rotation& rotation = rotations_[rotation_of_layer_[index]];
  const uint32_t query_width = spec.query_heads * spec.head_dim;
  const uint32_t kv_width = spec.kv_heads * spec.head_dim;
  const Rows hidden = {scratch_.hidden, rows, config_.hidden_dim};
  const Rows normed = {scratch_.normed, rows, config_.hidden_dim};
  const Rows q = {scratch_.q, rows, query_width};
  const Rows k = {scratch_.k, rows, kv_width};
  const Rows v = {scratch_.v, rows, kv_width};
  const Rows attended = {scratch_.attended, rows, query_width};
  const StepRows places = {places_[cache_.group_of(index)], tables_};

  const MatMulTarget inputs[] = {{weights.q.get(), weights.q_bias.data(), q},
                                 {weights.k.get(), weights.k_bias.data(), k},
                                 {weights.v.get(), weights.v_bias.data(), v}};
  ops_->NormMatMul(hidden, weights.attention_norm.data(), static_cast<float>(spec.norm_eps), normed,
                   inputs);
  const RopeRows angles = {Floats(rotation.cosine), Floats(rotation.sine), spec.rope.rotary_dim,
                           spec.rope.layout == RopeLayout::kInterleaved};
  ops_->RopeKvWrite(q, k, v, angles, places, cache_.layer(index));
  const AttentionSpec attention = {spec.query_heads, spec.window_tokens,
                                   1.0F / std::sqrt(static_cast<float>(spec.head_dim))};
  ops_->Attention(q, places, cache_.layer(index), attention, attended);
  const MatMulTarget output = {weights.o.get(), weights.o_bias.data(), hidden, true};
  ops_->MatMul(attended, {&output, 1});
}

// hidden += feed-forward of its norm.
void Transformer::FeedForwardPart(size_t index, uint32_t rows) {
  const LayerSpec& spec = config_.layers[index];
  const LayerWeights& weights = weights_.layers[index];
  const Rows hidden = {scratch_.hidden, rows, config_.hidden_dim};
  const Rows gate = {scratch_.gate, rows, spec.ffn_dim};
  const Rows up = {scratch_.up, rows, spec.ffn_dim};
  const MatMulTarget inputs[] = {{weights.gate.get(), weights.gate_bias.data(), gate},
                                 {weights.up.get(), weights.up_bias.data(), up}};
  ops_->NormMatMul(hidden, weights.ffn_norm.data(), static_cast<float>(spec.norm_eps),
                   {scratch_.normed, rows, config_.hidden_dim}, inputs);
  const MatMulTarget output = {weights.down.get(), weights.down_bias.data(), hidden, true};
  ops_->SiluMatMul(gate, up, {&output, 1});
}

}  // namespace muselet
