// Counts what a thread asks of operator new, which allocations.cc replaces for the whole program
// (not under ThreadSanitizer: nothing is counted there).
#pragma once

#include <cstdint>

namespace muselet::testing {

struct Allocations {
  uint64_t count = 0;
  uint64_t largest_bytes = 0;
};

// Of the calling thread since it began, or since its last call of ForgetLargest.
Allocations AllocationsSoFar();
void ForgetLargest();

}  // namespace muselet::testing
