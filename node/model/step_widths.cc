#include "node/model/step_widths.h"

#include <algorithm>

namespace muselet {

uint32_t ExpertChoices(const LayerSpec& spec, const LayerShard& shard) {
  uint32_t held = 0;
  for (const FeedForwardPart& part : shard.feed_forward) held += part.experts;
  return std::min(spec.experts_active, held);
}

StepWidths WidthsOf(const LayerSpec& spec, const LayerShard& shard, uint32_t hidden) {
  StepWidths widths;
  for (const AttentionPart& part : shard.attention) {
    widths.query += uint64_t{part.query_heads} * spec.head_dim;
    widths.kv += uint64_t{part.kv_heads} * spec.head_dim;
  }
  if (spec.output_gate) widths.gate = widths.query;
  if (spec.experts > 0) {
    const uint32_t choices = ExpertChoices(spec, shard);
    widths.ffn = uint64_t{choices} * spec.ffn_dim;
    widths.scores = spec.experts;
    widths.down = uint64_t{choices} * hidden;
    return widths;
  }
  for (const FeedForwardPart& part : shard.feed_forward) widths.ffn += part.columns;
  return widths;
}

StepWidths WidestOf(const ModelConfig& config, const RankShard& shard) {
  StepWidths widest;
  for (size_t i = 0; i < shard.layers.size(); ++i) {
    const StepWidths layer =
        WidthsOf(config.layers[shard.layer_begin + i], shard.layers[i], config.hidden_dim);
    widest.query = std::max(widest.query, layer.query);
    widest.kv = std::max(widest.kv, layer.kv);
    widest.gate = std::max(widest.gate, layer.gate);
    widest.ffn = std::max(widest.ffn, layer.ffn);
    widest.scores = std::max(widest.scores, layer.scores);
    widest.down = std::max(widest.down, layer.down);
  }
  return widest;
}

}  // namespace muselet
