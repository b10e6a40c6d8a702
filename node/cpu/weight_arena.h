// Memory for weights, in large pages where the system has them: a decode step reads every weight
// once, and with pages of 4 KiB a third of the memory's bandwidth is lost to address translation.
#pragma once

#include <cstddef>
#include <vector>

#include "base/device/buffer.h"
#include "base/status.h"

namespace muselet::cpu {

// Hands out zeroed pieces that live as long as the arena. Not synchronised.
class WeightArena {
 public:
  // A piece of `bytes`, aligned to 64. kResourceExhausted if there is no memory.
  Result<std::byte*> Allocate(size_t bytes);

 private:
  std::vector<DeviceBuffer> regions_;
  size_t used_ = 0;  // of the last region
};

// Anonymous zeroed memory, page-aligned; pages that are never touched cost nothing.
Result<DeviceBuffer> AllocatePages(size_t bytes);

// The same, aligned to kLargePageBytes and advised to be backed by large pages.
Result<DeviceBuffer> AllocateLargePages(size_t bytes);

inline constexpr size_t kLargePageBytes = size_t{2} << 20;

}  // namespace muselet::cpu
