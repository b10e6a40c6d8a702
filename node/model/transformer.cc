#include "node/model/transformer.h"

#include <algorithm>
#include <cmath>

#include "node/model/model_info.h"
#include "node/model/rope_table.h"

namespace muselet {
namespace {

float* Floats(const DeviceBuffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

// Rows [begin, begin + count) of x.
Rows Part(Rows x, uint32_t begin, uint32_t count) {
  return {x.row(begin), count, x.width};
}

// What the parts of a layer need of each kind, in values a row.
struct Widths {
  size_t query = 0, kv = 0, ffn = 0;
};

Widths WidthsOf(const LayerShard& shard, const LayerSpec& spec) {
  Widths widths;
  for (const AttentionPart& part : shard.attention) {
    widths.query += size_t{part.query_heads} * spec.head_dim;
    widths.kv += size_t{part.kv_heads} * spec.head_dim;
  }
  for (const FeedForwardPart& part : shard.feed_forward) widths.ffn += part.columns;
  return widths;
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
    parts_max = std::max(parts_max, shard_.layers[i].attention.size() * 3);
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

Status Transformer::Reserve(uint32_t rows) {
  if (rows <= scratch_.rows) return OkStatus();
  RETURN_IF_ERROR(exchange_.Reserve(*ops_, rows, slots_max_));
  size_t query = 0, kv = 0, ffn = 0;
  for (size_t i = 0; i < shard_.layers.size(); ++i) {
    const Widths widths = WidthsOf(shard_.layers[i], layer(i));
    query = std::max(query, widths.query);
    kv = std::max(kv, widths.kv);
    ffn = std::max(ffn, widths.ffn);
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

Result<std::span<const float>> Transformer::Forward(const StepPlan& plan) {
  const uint32_t rows = plan.row_count();
  RETURN_IF_ERROR(Reserve(rows));
  PlaceRows(plan);
  RETURN_IF_ERROR(ReserveLogits(static_cast<uint32_t>(logits_rows_.size())));
  if (shard_.first_stage) {
    ops_->Gather(*weights_.embedding, plan.tokens, Hidden(rows));
  } else {
    RETURN_IF_ERROR(exchange_.Receive(Hidden(rows)));
  }
  for (size_t i = 0; i < shard_.layers.size(); ++i) {
    RETURN_IF_ERROR(AttentionPart(i, rows));
    RETURN_IF_ERROR(FeedForwardPart(i, rows));
  }
  if (shard_.last_stage) return Logits(rows);
  RETURN_IF_ERROR(exchange_.Send(Hidden(rows)));
  return std::span<const float>();
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
  if (plan_.tensor > 1) RETURN_IF_ERROR(exchange_.GatherLogits(outputs, whole.data));
  if (shard_.tensor_rank > 0) return std::span<const float>();
  return std::span<const float>(whole.data, size_t{outputs} * whole.width);
}

// hidden += attention of its norm.
Status Transformer::AttentionPart(size_t index, uint32_t rows) {
  const LayerSpec& spec = layer(index);
  const LayerShard& shard = shard_.layers[index];
  const LayerWeights& weights = weights_.layers[index];
  const Rotation& rotation = rotations_[rotation_of_layer_[index]];
  const StepRows places = {places_[cache_.group_of(index)], tables_};
  targets_.clear();
  size_t query_at = 0, kv_at = 0;  // where a part's rows begin
  for (size_t p = 0; p < shard.attention.size(); ++p) {
    const AttentionWeights& part = weights.attention[p];
    const uint32_t query_width = shard.attention[p].query_heads * spec.head_dim;
    const uint32_t kv_width = shard.attention[p].kv_heads * spec.head_dim;
    targets_.push_back(
        {part.q.get(), part.q_bias.data(), {scratch_.q + query_at, rows, query_width}});
    targets_.push_back({part.k.get(), part.k_bias.data(), {scratch_.k + kv_at, rows, kv_width}});
    targets_.push_back({part.v.get(), part.v_bias.data(), {scratch_.v + kv_at, rows, kv_width}});
    query_at += size_t{rows} * query_width;
    kv_at += size_t{rows} * kv_width;
  }
  ops_->NormMatMul(Hidden(rows), weights.attention_norm.data(), static_cast<float>(spec.norm_eps),
                   {scratch_.normed, rows, config_.hidden_dim}, targets_);
  const RopeRows angles = {Floats(rotation.cosine), Floats(rotation.sine), spec.rope.rotary_dim,
                           spec.rope.layout == RopeLayout::kInterleaved};
  for (size_t p = 0; p < shard.attention.size(); ++p) {
    const Rows q = targets_[3 * p].out, k = targets_[3 * p + 1].out, v = targets_[3 * p + 2].out;
    const PagedKv& cache = cache_.part(index, p);
    ops_->RopeKvWrite(q, k, v, angles, places, cache);
    const AttentionSpec attention = {shard.attention[p].query_heads, spec.window_tokens,
                                     1.0F / std::sqrt(static_cast<float>(spec.head_dim))};
    ops_->Attention(q, places, cache, attention,
                    {scratch_.attended + (q.data - scratch_.q), rows, q.width});
  }
  return ProjectAttended(index, rows);
}

// hidden += output projection of what was attended to.
Status Transformer::ProjectAttended(size_t index, uint32_t rows) {
  const LayerWeights& weights = weights_.layers[index];
  if (plan_.tensor == 1) {
    const Matrix* o = weights.attention[0].o.get();
    const MatMulTarget output = {o, weights.o_bias.data(), Hidden(rows), true};
    ops_->MatMul({scratch_.attended, rows, o->columns()}, {&output, 1});
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
        exchange_.AddWhole(*ops_, order, weights.o_bias.data(), Part(Hidden(rows), begin, count)));
  }
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

// hidden += down projection of silu(gate) * up, which `targets_` has.
Status Transformer::ProjectGated(size_t index, uint32_t rows) {
  const LayerWeights& weights = weights_.layers[index];
  if (plan_.tensor == 1) {
    const MatMulTarget output = {weights.feed_forward[0].down.get(), weights.down_bias.data(),
                                 Hidden(rows), true};
    ops_->SiluMatMul(targets_[0].out, targets_[1].out, {&output, 1});
    return OkStatus();
  }
  const PartialOrder& order = orders_[index].feed_forward;
  const uint32_t at_once = exchange_.RowsAtOnce(slots_max_);
  for (uint32_t begin = 0; begin < rows; begin += at_once) {
    const uint32_t count = std::min(at_once, rows - begin);
    for (uint32_t p = 0; p < weights.feed_forward.size(); ++p) {
      const MatMulTarget partial = {weights.feed_forward[p].down.get(), nullptr,
                                    exchange_.Slot(p, count)};
      ops_->SiluMatMul(Part(targets_[2 * p].out, begin, count),
                       Part(targets_[2 * p + 1].out, begin, count), {&partial, 1});
    }
    RETURN_IF_ERROR(exchange_.AddWhole(*ops_, order, weights.down_bias.data(),
                                       Part(Hidden(rows), begin, count)));
  }
  return OkStatus();
}

}  // namespace muselet
