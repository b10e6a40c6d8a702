#include "tests/node/model/allocations.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {
thread_local muselet::testing::Allocations allocations;
}  // namespace

// ThreadSanitizer knows libraries by their own calls of delete: with a replacement, the hand-overs
// inside ZeroMQ look like races of ours. Nothing is counted there.
#if !defined(__SANITIZE_THREAD__)
// Not inlined, so that the compiler sees matching pairs.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations.count;
  allocations.largest_bytes = std::max<uint64_t>(allocations.largest_bytes, size);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
// ZeroMQ asks this way; AddressSanitizer would serve it, and then find that we free it.
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++allocations.count;
  allocations.largest_bytes = std::max<uint64_t>(allocations.largest_bytes, size);
  return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
#endif

namespace muselet::testing {

Allocations AllocationsSoFar() {
  return allocations;
}

void ForgetLargest() {
  allocations.largest_bytes = 0;
}

}  // namespace muselet::testing
