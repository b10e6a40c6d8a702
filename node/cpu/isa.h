// Which instruction set level the kernels run at, chosen at run time from what the processor has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "node/cpu/kernels.h"
#include "node/engine/engine_options.h"

namespace muselet::cpu {

// The kernels of `level`; kAuto takes the best that this processor and this program have.
// kUnavailable for a level that cannot run here.
Result<const Kernels*> SelectKernels(IsaLevel level);

// "scalar", "avx2"; for kAuto the level that it stands for here.
std::string_view IsaName(IsaLevel level);

// What cpu.isa may be, in the order of IsaLevel: the same in every build, so that a file means the
// same everywhere. Whether this program and this processor have the level is SelectKernels' answer.
std::vector<std::string> IsaLevelNames();

}  // namespace muselet::cpu
