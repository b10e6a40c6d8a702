// What a replica is to the simulator: how long its steps take and how much it holds. Comes from a
// measured run of the real model (measure.h) or is written by hand; a JSON file.
#pragma once

#include <string>

#include "base/status.h"
#include "scheduler/sim/step_cost.h"

namespace muselet {

struct Calibration {
  std::string source;  // what was measured, for the report
  StepCost cost;
  uint64_t kv_tokens = 65'536;
  uint32_t context_tokens = 32'768;
};

// kInvalidArgument or kNotFound naming the file and the key.
Result<Calibration> ReadCalibration(const std::string& path);
Status WriteCalibration(const std::string& path, const Calibration& calibration);

}  // namespace muselet
