// A view of a tensor that somebody else owns: dtype, shape, bytes. Row-major and dense: the last
// axis is contiguous, and quantised rows are whole blocks. Cheap to copy.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/check.h"
#include "base/device/dtype.h"

namespace muselet {

struct TensorView {
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  uint32_t rank = 0;
  std::array<uint64_t, 4> shape = {
      1, 1, 1, 1};  // outermost first, as in Hugging Face; GGUF's order is reversed on load

  uint64_t dim(uint32_t axis) const {
    CHECK(axis < rank, "axis ", axis, " of a tensor of rank ", rank);
    return shape[axis];
  }
  uint64_t count() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
  uint64_t bytes() const {
    return count() / Traits(dtype).block_values * Traits(dtype).block_bytes;
  }
  // "[576, 1536] q4_1"
  std::string ToString() const {
    std::string text = "[";
    for (uint32_t axis = 0; axis < rank; ++axis) {
      if (axis > 0) text += ", ";
      text += std::to_string(shape[axis]);
    }
    return text + "] " + std::string(Traits(dtype).name);
  }
};

}  // namespace muselet
