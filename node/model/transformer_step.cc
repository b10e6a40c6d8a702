// A step of the forward pass, layer by layer.
#include <algorithm>
#include <cmath>

#include "node/model/transformer.h"

namespace muselet {
namespace {

float* Floats(const DeviceBuffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

// Rows [begin, begin + count) of x.
Rows Part(Rows x, uint32_t begin, uint32_t count) {
  return {x.row(begin), count, x.width};
}

// Each head of x as a row of its own.
Rows Heads(Rows x, uint32_t head_dim) {
  return {x.data, x.count * (x.width / head_dim), head_dim};
}

float AttentionScale(const LayerSpec& spec) {
  if (spec.attention_scale > 0.0) return static_cast<float>(spec.attention_scale);
  return 1.0F / std::sqrt(static_cast<float>(spec.head_dim));
}

}  // namespace

Result<std::span<const float>> Transformer::Forward(const StepPlan& plan) {
  const uint32_t rows = plan.row_count();
  RETURN_IF_ERROR(Reserve(rows));
  PlaceRows(plan);
  RETURN_IF_ERROR(ReserveLogits(static_cast<uint32_t>(logits_rows_.size())));
  if (shard_.first_stage) {
    Embed(plan);
  } else {
    RETURN_IF_ERROR(exchange_.Receive(Hidden(rows)));
  }
  for (size_t i = 0; i < shard_.layers.size(); ++i) {
    RETURN_IF_ERROR(AttentionPart(i, rows));
    RETURN_IF_ERROR(layer(i).experts > 0 ? ExpertsPart(i, rows) : FeedForwardPart(i, rows));
  }
  if (shard_.last_stage) return Logits(rows);
  RETURN_IF_ERROR(exchange_.Send(Hidden(rows)));
  return std::span<const float>();
}

void Transformer::Embed(const StepPlan& plan) {
  const Rows hidden = Hidden(plan.row_count());
  ops_->Gather(*weights_.embedding, plan.tokens, hidden);
  if (config_.embedding_norm_eps > 0.0)
    ops_->RmsNorm(hidden, weights_.embedding_norm.data(),
                  static_cast<float>(config_.embedding_norm_eps), hidden);
  if (config_.embedding_scale != 1.0)
    ops_->Scale(hidden, static_cast<float>(config_.embedding_scale), hidden);
}

// Of the rows that the plan asks for, out of `rows`.
Result<std::span<const float>> Transformer::Logits(uint32_t rows) {
  const auto outputs = static_cast<uint32_t>(logits_rows_.size());
  if (outputs == 0) return std::span<const float>();
  const Rows last = {scratch_.normed, outputs, config_.hidden_dim};
  ops_->SelectRows(Hidden(rows), logits_rows_, last);
  ops_->RmsNorm(last, weights_.output_norm.data(), static_cast<float>(config_.final_norm_eps),
                last);
  const Rows whole = {Floats(logits_), outputs, config_.vocab_size};
  const Rows out = plan_.tensor == 1 ? whole : exchange_.LogitsSlice(outputs);
  const MatMulTarget head = {&weights_.head(), nullptr, out};
  ops_->MatMul(last, {&head, 1});
  if (config_.logit_scale != 1.0) ops_->Scale(out, static_cast<float>(config_.logit_scale), out);
  if (config_.logit_soft_cap > 0.0)
    ops_->SoftCap(out, static_cast<float>(config_.logit_soft_cap), out);
  if (plan_.tensor > 1) RETURN_IF_ERROR(exchange_.GatherLogits(outputs, whole.data));
  if (shard_.tensor_rank > 0) return std::span<const float>();
  return std::span<const float>(whole.data, size_t{outputs} * whole.width);
}

// Queries, keys, values and output gates of every part, which `targets_` then has: so many a part.
void Transformer::ProjectInputs(size_t index, uint32_t rows) {
  const LayerSpec& spec = layer(index);
  const LayerWeights& weights = weights_.layers[index];
  targets_.clear();
  size_t query_at = 0, kv_at = 0;  // where a part's rows begin
  for (size_t p = 0; p < weights.attention.size(); ++p) {
    const AttentionWeights& part = weights.attention[p];
    const uint32_t query_width = part.q->rows(), kv_width = part.k->rows();
    targets_.push_back(
        {part.q.get(), part.q_bias.data(), {scratch_.q + query_at, rows, query_width}});
    targets_.push_back({part.k.get(), part.k_bias.data(), {scratch_.k + kv_at, rows, kv_width}});
    targets_.push_back({part.v.get(), part.v_bias.data(), {scratch_.v + kv_at, rows, kv_width}});
    if (spec.output_gate)
      targets_.push_back(
          {part.gate.get(), nullptr, {scratch_.output_gate + query_at, rows, query_width}});
    query_at += size_t{rows} * query_width;
    kv_at += size_t{rows} * kv_width;
  }
  ops_->NormMatMul(Hidden(rows), weights.attention_norm.data(), static_cast<float>(spec.norm_eps),
                   {scratch_.normed, rows, config_.hidden_dim}, targets_);
}

// hidden += attention of its norm.
Status Transformer::AttentionPart(size_t index, uint32_t rows) {
  const LayerSpec& spec = layer(index);
  const LayerShard& shard = shard_.layers[index];
  const LayerWeights& weights = weights_.layers[index];
  const Rotation& rotation = rotations_[rotation_of_layer_[index]];
  const StepRows places = {places_[cache_.group_of(index)], tables_};
  ProjectInputs(index, rows);
  const RopeRows angles = {Floats(rotation.cosine), Floats(rotation.sine), spec.rope.rotary_dim,
                           spec.rope.layout == RopeLayout::kInterleaved};
  const size_t stride = spec.output_gate ? 4 : 3;
  const auto eps = static_cast<float>(spec.norm_eps);
  for (size_t p = 0; p < shard.attention.size(); ++p) {
    const MatMulTarget* const part = targets_.data() + stride * p;
    const Rows q = part[0].out, k = part[1].out, v = part[2].out;
    if (spec.head_norm != HeadNorm::kNone) {
      const Rows query_heads = Heads(q, spec.head_dim), key_heads = Heads(k, spec.head_dim);
      ops_->RmsNorm(query_heads, weights.q_norm.data(), eps, query_heads);
      ops_->RmsNorm(key_heads, weights.k_norm.data(), eps, key_heads);
    }
    const PagedKv& cache = cache_.part(index, p);
    ops_->RopeKvWrite(q, k, v, angles, places, cache);
    const AttentionSpec attention = {shard.attention[p].query_heads, spec.window_tokens,
                                     AttentionScale(spec)};
    const Rows attended = {scratch_.attended + (q.data - scratch_.q), rows, q.width};
    ops_->Attention(q, places, cache, attention, attended);
    if (spec.output_gate) ops_->SigmoidMul(part[3].out, attended, attended);
  }
  return ProjectAttended(index, rows);
}

// Where the result of a part of a layer is added: the residual, or zeros if it is normed first.
Rows Transformer::BeginResult(const LayerSpec& spec, uint32_t rows) {
  if (!spec.post_norms) return Hidden(rows);
  const Rows result = {scratch_.normed, rows, config_.hidden_dim};
  ops_->Clear(result);
  return result;
}

void Transformer::EndResult(const LayerSpec& spec, const WeightVector& norm, Rows result) {
  if (!spec.post_norms) return;
  ops_->RmsNorm(result, norm.data(), static_cast<float>(spec.post_norm_eps), result);
  const Rows hidden = Hidden(result.count);
  ops_->Add(hidden, result, hidden);
}

// hidden += output projection of what was attended to.
Status Transformer::ProjectAttended(size_t index, uint32_t rows) {
  const LayerWeights& weights = weights_.layers[index];
  const Rows result = BeginResult(layer(index), rows);
  if (plan_.tensor == 1) {
    const Matrix* o = weights.attention[0].o.get();
    const MatMulTarget output = {o, weights.o_bias.data(), result, true};
    ops_->MatMul({scratch_.attended, rows, o->columns()}, {&output, 1});
    EndResult(layer(index), weights.post_attention_norm, result);
    return OkStatus();
  }
  const PartialOrder& order = orders_[index].attention;
  const uint32_t at_once = exchange_.RowsAtOnce(slots_max_);
  for (uint32_t begin = 0; begin < rows; begin += at_once) {
    const uint32_t count = std::min(at_once, rows - begin);
    float* attended = scratch_.attended;
    for (uint32_t p = 0; p < weights.attention.size(); ++p) {
      const Matrix* o = weights.attention[p].o.get();
      const Rows x = {attended, rows, o->columns()};
      const MatMulTarget partial = {o, nullptr, exchange_.Slot(p, count)};
      ops_->MatMul(Part(x, begin, count), {&partial, 1});
      attended += size_t{rows} * x.width;
    }
    RETURN_IF_ERROR(
        exchange_.AddWhole(*ops_, order, weights.o_bias.data(), Part(result, begin, count)));
  }
  EndResult(layer(index), weights.post_attention_norm, result);
  return OkStatus();
}

// hidden += feed-forward of its norm.
Status Transformer::FeedForwardPart(size_t index, uint32_t rows) {
  const LayerWeights& weights = weights_.layers[index];
  targets_.clear();
  size_t at = 0;  // where a part's rows begin
  for (const FeedForwardWeights& part : weights.feed_forward) {
    const uint32_t width = part.gate->rows();
    targets_.push_back({part.gate.get(), part.gate_bias.data(), {scratch_.gate + at, rows, width}});
    targets_.push_back({part.up.get(), part.up_bias.data(), {scratch_.up + at, rows, width}});
    at += size_t{rows} * width;
  }
  ops_->NormMatMul(Hidden(rows), weights.ffn_norm.data(), static_cast<float>(layer(index).norm_eps),
                   {scratch_.normed, rows, config_.hidden_dim}, targets_);
  return ProjectGated(index, rows);
}

// The down projection of activation(gate) * up.
void Transformer::Activate(const LayerSpec& spec, Rows gate, Rows up, const MatMulTarget& down) {
  if (spec.activation == Activation::kSilu) return ops_->SiluMatMul(gate, up, {&down, 1});
  ops_->GeluMul(gate, up, gate);
  ops_->MatMul(gate, {&down, 1});
}

// hidden += down projection of what is gated, which `targets_` has.
Status Transformer::ProjectGated(size_t index, uint32_t rows) {
  const LayerSpec& spec = layer(index);
  const LayerWeights& weights = weights_.layers[index];
  const Rows result = BeginResult(spec, rows);
  if (plan_.tensor == 1) {
    Activate(spec, targets_[0].out, targets_[1].out,
             {weights.feed_forward[0].down.get(), weights.down_bias.data(), result, true});
    EndResult(spec, weights.post_ffn_norm, result);
    return OkStatus();
  }
  const PartialOrder& order = orders_[index].feed_forward;
  const uint32_t at_once = exchange_.RowsAtOnce(slots_max_);
  for (uint32_t begin = 0; begin < rows; begin += at_once) {
    const uint32_t count = std::min(at_once, rows - begin);
    for (uint32_t p = 0; p < weights.feed_forward.size(); ++p) {
      Activate(spec, Part(targets_[2 * p].out, begin, count),
               Part(targets_[2 * p + 1].out, begin, count),
               {weights.feed_forward[p].down.get(), nullptr, exchange_.Slot(p, count)});
    }
    RETURN_IF_ERROR(
        exchange_.AddWhole(*ops_, order, weights.down_bias.data(), Part(result, begin, count)));
  }
  EndResult(spec, weights.post_ffn_norm, result);
  return OkStatus();
}

// hidden += what the experts of each row give for its norm.
Status Transformer::ExpertsPart(size_t index, uint32_t rows) {
  const LayerSpec& spec = layer(index);
  const LayerShard& shard = shard_.layers[index];
  const LayerWeights& weights = weights_.layers[index];
  const Rows normed = {scratch_.normed, rows, config_.hidden_dim};
  const Rows scores = {scratch_.scores, rows, spec.experts};
  ops_->RmsNorm(Hidden(rows), weights.ffn_norm.data(), static_cast<float>(spec.norm_eps), normed);
  const MatMulTarget router = {weights.router.get(), nullptr, scores};
  ops_->MatMul(normed, {&router, 1});
  const RouterSpec rule = {spec.experts, spec.experts_active, spec.experts_renormalised};
  const ExpertScratch scratch = {scratch_.gate, scratch_.up, scratch_.down};
  const bool whole = plan_.tensor == 1;
  const uint32_t at_once = whole ? rows : exchange_.RowsAtOnce(slots_max_);
  for (uint32_t begin = 0; begin < rows; begin += at_once) {
    const uint32_t count = std::min(at_once, rows - begin);
    expert_parts_.clear();
    for (uint32_t p = 0; p < shard.feed_forward.size(); ++p) {
      const auto& part = shard.feed_forward[p];
      expert_parts_.push_back({part.expert_begin, experts_[index][p], part.segments.count(),
                               whole ? Hidden(rows) : exchange_.Slot(p, count), whole});
    }
    ops_->ExpertFeedForward(Part(normed, begin, count), Part(scores, begin, count), rule, scratch,
                            expert_parts_);
    if (whole) return OkStatus();
    RETURN_IF_ERROR(exchange_.AddWhole(*ops_, orders_[index].feed_forward, nullptr,
                                       Part(Hidden(rows), begin, count)));
  }
  return OkStatus();
}

}  // namespace muselet
