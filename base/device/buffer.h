// A piece of device memory with an owner. On the CPU backend it is ordinary memory.
#pragma once

#include <cstddef>
#include <utility>

namespace muselet {

// Owns `size` bytes and gives them back with `release` at the end. Movable, not copyable; not
// synchronised.
class DeviceBuffer {
 public:
  using ReleaseFunction = void (*)(std::byte* data, size_t size);

  DeviceBuffer() = default;
  DeviceBuffer(std::byte* data, size_t size, ReleaseFunction release)
      : data_(data), size_(size), release_(release) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) release_(data_, size_);
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  ReleaseFunction release_ = nullptr;
};

}  // namespace muselet
