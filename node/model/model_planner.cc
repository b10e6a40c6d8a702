#include "node/model/model_planner.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "node/model/memory_plan.h"
#include "node/model/model_outline.h"

namespace muselet {
namespace {

// A request, answered.
struct PlannedModel {
  ModelOutline outline;
  ShardPlan plan;
  MemoryOptions memory;
  std::vector<RankFootprint> ranks;
  std::optional<uint64_t> sequences;  // that fit, if devices are given
  std::optional<ShardSpec> smallest;  // layout that fits, if this one does not
};

Result<PlannedModel> Plan(const PlanRequest& request) {
  PlannedModel planned;
  ASSIGN_OR_RETURN(planned.outline, ReadModelOutline(request.path, request.weights));
  const ModelConfig& config = planned.outline.config;
  const WeightFormat& format = planned.outline.format;
  planned.memory = {request.kv, request.context_tokens, request.step_tokens, request.sequences};
  if (request.context_tokens == 0) planned.memory.context_tokens = config.context_tokens;
  if (request.context_tokens > config.context_tokens) {
    return InvalidArgument(fmt::format("context: {} tokens, the model's limit is {}",
                                       request.context_tokens, config.context_tokens));
  }
  ShardSpec spec = request.spec;
  const bool choose = request.any_layout && request.device_bytes > 0;
  if (request.device_bytes > 0)
    planned.smallest = SmallestThatFits(config, format, planned.memory, request.device_bytes);
  if (choose && !planned.smallest) {
    return ResourceExhausted(
        fmt::format("no layout of this model fits on devices of {} bytes with one sequence of {} "
                    "tokens",
                    request.device_bytes, planned.memory.context_tokens));
  }
  if (choose) spec = *planned.smallest;
  ASSIGN_OR_RETURN(planned.plan, MakeShardPlan(config, format, spec));
  for (uint32_t rank = 0; rank < planned.plan.rank_count(); ++rank)
    planned.ranks.push_back(MemoryOf(config, format, planned.plan, rank, planned.memory));
  if (request.device_bytes > 0)
    planned.sequences = SequencesThatFit(planned.ranks, request.device_bytes);
  return planned;
}

std::string Bytes(uint64_t bytes) {
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto scaled = static_cast<double>(bytes);
  size_t unit = 0;
  while (scaled >= 1024.0) {
    scaled /= 1024.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", scaled, kUnits[unit]);
}

// [begin, end) as people count: "0-9", "3", or "-" for nothing.
std::string Range(uint32_t begin, uint32_t end) {
  if (begin == end) return "-";
  if (begin + 1 == end) return std::to_string(begin);
  return fmt::format("{}-{}", begin, end - 1);
}

// What a rank holds of its first layer; all layers of the models that are known are cut alike.
struct Held {
  uint32_t query_begin = 0, query_end = 0, kv_begin = 0, kv_end = 0;
  uint32_t column_begin = 0, column_end = 0;
  uint32_t expert_begin = 0, expert_end = 0;
};

Held HeldBy(const RankShard& shard) {
  const LayerShard& layer = shard.layers.front();
  const AttentionPart& last = layer.attention.back();
  const FeedForwardPart& last_columns = layer.feed_forward.back();
  return {
      layer.attention.front().query_begin,     last.query_begin + last.query_heads,
      layer.attention.front().kv_begin,        last.kv_begin + last.kv_heads,
      layer.feed_forward.front().column_begin, last_columns.column_begin + last_columns.columns,
      layer.feed_forward.front().expert_begin, last_columns.expert_begin + last_columns.experts};
}

// Columns, or experts: "e0-63".
std::string FeedForwardText(const Held& held) {
  if (held.expert_end == 0) return Range(held.column_begin, held.column_end);
  return "e" + Range(held.expert_begin, held.expert_end);
}

constexpr std::string_view kRow =
    "{:<5} {:<6} {:<8} {:<8} {:<8} {:<12} {:<14} {:>11} {:>11} {:>11} {:>11}\n";

std::string Row(const RankShard& shard, const RankFootprint& memory) {
  const Held held = HeldBy(shard);
  return fmt::format(
      fmt::runtime(kRow), shard.rank, shard.stage, Range(shard.layer_begin, shard.layer_end),
      Range(held.query_begin, held.query_end), Range(held.kv_begin, held.kv_end),
      FeedForwardText(held), Range(shard.vocab_begin, shard.vocab_end), Bytes(memory.weights),
      Bytes(memory.kv_token), Bytes(memory.kv_sequence), Bytes(memory.workspace));
}

std::string Verdict(const PlannedModel& planned, uint64_t device_bytes) {
  const std::string devices = fmt::format("devices of {}", Bytes(device_bytes));
  if (*planned.sequences > 0)
    return fmt::format("{} sequences of {} tokens fit on {}\n", *planned.sequences,
                       planned.memory.context_tokens, devices);
  if (!planned.smallest)
    return fmt::format("does not fit on {}, and no other layout does\n", devices);
  return fmt::format("does not fit on {}; the smallest layout that does: tensor {} x pipeline {}\n",
                     devices, planned.smallest->tensor, planned.smallest->pipeline);
}

}  // namespace

Result<std::string> PlanText(const PlanRequest& request) {
  ASSIGN_OR_RETURN(const PlannedModel planned, Plan(request));
  const ShardPlan& plan = planned.plan;
  std::string text = fmt::format("plan            tensor {} x pipeline {}, digest {}\n",
                                 plan.tensor, plan.pipeline, plan.Digest());
  text += fmt::format("KV              {}, sequences of {} tokens\n", Traits(request.kv).name,
                      planned.memory.context_tokens);
  text += fmt::format("workspace       steps of {} tokens\n\n", request.step_tokens);
  text +=
      fmt::format(fmt::runtime(kRow), "rank", "stage", "layers", "queries", "KV heads",
                  "FFN columns", "vocabulary", "weights", "KV a token", "a sequence", "workspace");
  RankFootprint sum;
  for (const RankShard& shard : plan.ranks) {
    const RankFootprint& memory = planned.ranks[shard.rank];
    text += Row(shard, memory);
    sum.weights += memory.weights;
    sum.kv_token += memory.kv_token;
    sum.kv_sequence += memory.kv_sequence;
    sum.workspace += memory.workspace;
  }
  text += fmt::format(fmt::runtime(kRow), "all", "", "", "", "", "", "", Bytes(sum.weights),
                      Bytes(sum.kv_token), Bytes(sum.kv_sequence), Bytes(sum.workspace));
  if (planned.ranks.front().mapped > 0)
    text +=
        fmt::format("\nembeddings      {} on each rank of stage 0, looked up in the mapped file\n",
                    Bytes(planned.ranks.front().mapped));
  if (planned.sequences) text += "\n" + Verdict(planned, request.device_bytes);
  return text;
}

Result<std::string> PlanJson(const PlanRequest& request) {
  ASSIGN_OR_RETURN(const PlannedModel planned, Plan(request));
  Json ranks = Json::array();
  for (const RankShard& shard : planned.plan.ranks) {
    const RankFootprint& memory = planned.ranks[shard.rank];
    const Held held = HeldBy(shard);
    ranks.push_back({{"rank", shard.rank},
                     {"stage", shard.stage},
                     {"tensor_rank", shard.tensor_rank},
                     {"layers", {shard.layer_begin, shard.layer_end}},
                     {"query_heads", {held.query_begin, held.query_end}},
                     {"kv_heads", {held.kv_begin, held.kv_end}},
                     {"ffn_columns", {held.column_begin, held.column_end}},
                     {"experts", {held.expert_begin, held.expert_end}},
                     {"vocabulary", {shard.vocab_begin, shard.vocab_end}},
                     {"weight_bytes", memory.weights},
                     {"mapped_bytes", memory.mapped},
                     {"kv_bytes_per_token", memory.kv_token},
                     {"kv_bytes_per_sequence", memory.kv_sequence},
                     {"workspace_bytes", memory.workspace}});
  }
  Json out = {{"tensor", planned.plan.tensor},
              {"pipeline", planned.plan.pipeline},
              {"digest", planned.plan.Digest()},
              {"context_tokens", planned.memory.context_tokens},
              {"ranks", ranks}};
  if (planned.sequences) out["sequences"] = *planned.sequences;
  if (planned.smallest)
    out["smallest"] = {{"tensor", planned.smallest->tensor},
                       {"pipeline", planned.smallest->pipeline}};
  return WriteJson(out);
}

}  // namespace muselet
