// A region of memory that the members of a rank group share, as processes of one host or as threads
// of one process. It has no name: members find it as an open file of the one that made it, which
// closes it once all have joined, so that nothing is left whoever dies when. Its pages are reserved
// when it is made, so that a lack of memory is a Status and not a signal later.
#pragma once

#include <cstddef>
#include <string>

#include "base/status.h"
#include "comms/rank_group_makers.h"

namespace muselet {

// Owns the mapping. Any thread.
class SharedMemoryRegion {
 public:
  SharedMemoryRegion() = default;
  SharedMemoryRegion(SharedMemoryRegion&& other) noexcept;
  SharedMemoryRegion& operator=(SharedMemoryRegion&& other) noexcept;
  ~SharedMemoryRegion();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  // All members of the group call this, with the same size; the memory is zeroed. Returns when all
  // have it or none is going to: kDeadlineExceeded naming who is missing, kResourceExhausted: the
  // memory cannot be had.
  static Result<SharedMemoryRegion> Join(const RankGroupSpec& spec, size_t bytes,
                                         RankRendezvous& rendezvous);

 private:
  SharedMemoryRegion(std::byte* data, size_t size) : data_(data), size_(size) {}
  static Status Open(const std::string& path, size_t bytes, SharedMemoryRegion& region);
  static Status Map(int fd, size_t bytes, SharedMemoryRegion& region);

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace muselet
