// A bounds-checked little-endian reader over bytes that somebody else owns. Every file format is
// read through it: a lying length is a Status that names the field, never a read past the end.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace muselet {

static_assert(std::endian::native == std::endian::little, "file formats are read in place");

// a * b, or kDataLoss naming `what` if it does not fit into 64 bits.
inline Result<uint64_t> CheckedMultiply(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product))
    return DataLoss(std::string(what) + ": size overflows");
  return product;
}

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

  // The next value of a fixed-size number type; `what` names it in the fault.
  template <typename T>
  requires std::integral<T> || std::floating_point<T> Result<T> Read(std::string_view what) {
    ASSIGN_OR_RETURN(const std::span<const std::byte> raw, Take(sizeof(T), what));
    T value;
    std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }

  // The next `count` bytes, in place.
  Result<std::span<const std::byte>> Take(uint64_t count, std::string_view what) {
    if (count > remaining()) {
      return DataLoss(std::string(what) + ": needs " + std::to_string(count) + " bytes at offset " +
                      std::to_string(offset_) + ", the file has " + std::to_string(remaining()) +
                      " left");
    }
    const auto taken = bytes_.subspan(offset_, count);
    offset_ += count;
    return taken;
  }

  // The next `count` bytes as characters, in place.
  Result<std::string_view> TakeString(uint64_t count, std::string_view what) {
    ASSIGN_OR_RETURN(const std::span<const std::byte> raw, Take(count, what));
    return std::string_view(reinterpret_cast<const char*>(raw.data()), raw.size());
  }

 private:
  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
};

}  // namespace muselet
