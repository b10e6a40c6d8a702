// What `muselet model inspect PATH --tensor ...` says: which rank holds what in how many bytes, and
// what fits on given devices.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/device/dtype.h"
#include "base/status.h"
#include "node/model/shard_plan.h"

namespace muselet {

struct PlanRequest {
  std::string path;  // as ReadModelOutline
  ShardSpec spec;
  bool any_layout = false;  // of `spec` nothing was asked for: the smallest layout that fits
  std::optional<DType> weights;
  DType kv = DType::kF16;
  uint64_t device_bytes = 0;    // of one rank's device; 0 = not given
  uint32_t context_tokens = 0;  // of a sequence; 0 = the model's
  uint32_t step_tokens = 512;
  uint32_t sequences = 64;  // that may need logits in one step
};

// A table for people, ending in a newline, or one JSON object in one line without. Faults as
// MakeShardPlan; kResourceExhausted if no layout fits on the devices.
Result<std::string> PlanText(const PlanRequest& request);
Result<std::string> PlanJson(const PlanRequest& request);

}  // namespace muselet
