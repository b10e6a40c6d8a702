// The name of a checkpoint's weights: a hash of headers and of samples of each tensor's bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "base/device/tensor.h"

namespace muselet {

// Feed in a fixed order, then take Hex. Not thread-safe. XXH3, 128 bits: names weights, does not
// defend against forgery.
class WeightDigest {
 public:
  WeightDigest();
  WeightDigest(const WeightDigest&) = delete;
  WeightDigest& operator=(const WeightDigest&) = delete;
  ~WeightDigest();

  void Add(std::span<const std::byte> bytes);
  void Add(std::string_view text);
  // Name, shape, size and four samples of 1 KiB, the first and the last among them.
  void AddTensor(std::string_view name, const TensorView& tensor);
  // 32 lower-case hex digits.
  std::string Hex() const;

 private:
  void* state_;
};

}  // namespace muselet
