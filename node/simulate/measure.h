// Measures how long steps of the real model take on this machine, for the simulator.
#pragma once

#include <string>

#include "base/status.h"
#include "node/engine/engine_options.h"
#include "node/simulate/calibration.h"

namespace muselet {

// Loads the checkpoint at `path` as a replica with these options would, and computes steps of
// several shapes. Takes seconds to minutes. Faults as LoadModel.
Result<Calibration> MeasureSteps(const std::string& path, const EngineOptions& options);

}  // namespace muselet
