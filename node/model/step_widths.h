// How many values of activations a row of a step takes on a rank.
#pragma once

#include <cstdint>

#include "node/model/model_config.h"
#include "node/model/shard_plan.h"

namespace muselet {

// Of one row, for what a rank holds of a layer, or the most that any of its layers takes.
struct StepWidths {
  uint64_t query = 0;   // also of what was attended to
  uint64_t kv = 0;      // of keys, and of values
  uint64_t gate = 0;    // of attention's result
  uint64_t ffn = 0;     // of gate, and of up; of all experts that the row may go to
  uint64_t scores = 0;  // of experts
  uint64_t down = 0;    // what experts gave

  // With the residual and its norm, `hidden` wide each.
  uint64_t RowValues(uint32_t hidden) const {
    return 2 * (hidden + query + kv + ffn) + gate + scores + down;
  }
};

// How many of a rank's experts a row can go to; 0 in a layer without experts.
uint32_t ExpertChoices(const LayerSpec& spec, const LayerShard& shard);

StepWidths WidthsOf(const LayerSpec& spec, const LayerShard& shard, uint32_t hidden);
StepWidths WidestOf(const ModelConfig& config, const RankShard& shard);

}  // namespace muselet
