// What this machine can give to a process, as far as a configuration can ask for too much of it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"
#include "node/engine/engine_options.h"

namespace muselet {

struct MemoryLimit {
  uint64_t bytes = 0;  // 0 = not known
  std::string source;  // "the memory of this machine", or the cgroup's file
};

// The smaller of the physical memory and the limits of the cgroups (v1 and v2) that this process is
// in. `root` stands before /proc and /sys; tests give another one.
MemoryLimit ReadMemoryLimit(const std::string& root = "");

struct Machine {
  MemoryLimit memory;
  // OK if the processor runs the kernels of the level.
  std::function<Status(IsaLevel)> check_isa;
};
Machine ThisMachine();

}  // namespace muselet
