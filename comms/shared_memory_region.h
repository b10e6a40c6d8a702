// A region of memory that the members of a rank group share, as processes of one host or as threads
// of one process. It has a random name and mode 0600 while the members join, and no name
// afterwards; its pages are reserved when it is made, so that a full /dev/shm is a Status and not a
// signal later.
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
  static Result<SharedMemoryRegion> Create(const std::string& name, size_t bytes);
  static Result<SharedMemoryRegion> Open(const std::string& name, size_t bytes);
  static Result<SharedMemoryRegion> Map(int fd, const std::string& name, size_t bytes);

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace muselet
