// The CPU backend: Ops over a thread pool and the kernels of one instruction set level. Strict in
// every mode: results depend neither on the level, nor on the threads, nor on other rows.
#pragma once

#include <memory>

#include "base/device/ops.h"
#include "node/engine/engine_options.h"

namespace muselet::cpu {

// kUnavailable if the processor lacks the level that `options.isa` forces, or this program does not
// have it; the message names the levels that work here.
Result<std::unique_ptr<Ops>> MakeCpuOps(const CpuOptions& options);

// Words for /version and benchmarks: "avx2, 2 threads".
std::string DescribeCpu(const CpuOptions& options);

}  // namespace muselet::cpu
