#include "node/cpu/weight_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <string>

namespace muselet::cpu {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kRegionBytes = size_t{64} << 20;

size_t RoundUp(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

Result<std::byte*> Map(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return ResourceExhausted("no memory for " + std::to_string(bytes >> 20) +
                             " MiB; choose a smaller model or kv.bytes");
  }
  return static_cast<std::byte*>(data);
}

void Unmap(std::byte* data, size_t bytes) {
  munmap(data, bytes);
}

}  // namespace

Result<DeviceBuffer> AllocatePages(size_t bytes) {
  const size_t size = std::max<size_t>(bytes, 1);
  ASSIGN_OR_RETURN(std::byte* const data, Map(size));
  return DeviceBuffer(data, size, Unmap);
}

Result<DeviceBuffer> AllocateLargePages(size_t bytes) {
  const size_t size = RoundUp(std::max<size_t>(bytes, 1), kLargePageBytes);
  ASSIGN_OR_RETURN(std::byte* const data, Map(size + kLargePageBytes));
  // Cut to the alignment: what stands before and after goes back.
  const size_t misaligned = reinterpret_cast<uintptr_t>(data) % kLargePageBytes;
  const size_t before = misaligned == 0 ? 0 : kLargePageBytes - misaligned;
  if (before > 0) Unmap(data, before);
  Unmap(data + before + size, kLargePageBytes - before);
  // Refused where the system has none: small pages serve as well, only slower.
  madvise(data + before, size, MADV_HUGEPAGE);
  return DeviceBuffer(data + before, size, Unmap);
}

Result<std::byte*> WeightArena::Allocate(size_t bytes) {
  const size_t size = RoundUp(std::max<size_t>(bytes, 1), kAlignment);
  if (regions_.empty() || regions_.back().size() - used_ < size) {
    ASSIGN_OR_RETURN(DeviceBuffer region, AllocateLargePages(std::max(size, kRegionBytes)));
    regions_.push_back(std::move(region));
    used_ = 0;
  }
  std::byte* const piece = regions_.back().data() + used_;
  used_ += size;
  return piece;
}

}  // namespace muselet::cpu
