// A matrix that is only looked up row by row, straight from the bytes of its tensor.
#pragma once

#include <memory>

#include "base/device/ops.h"

namespace muselet::cpu {

// Views the tensor, whose bytes outlive it. Immutable; any thread may read.
class LookupTable final : public Matrix {
 public:
  explicit LookupTable(const TensorView& tensor) : tensor_(tensor) {}

  uint32_t rows() const override { return static_cast<uint32_t>(tensor_.shape[0]); }
  uint32_t columns() const override { return static_cast<uint32_t>(tensor_.shape[1]); }
  DType dtype() const override { return tensor_.dtype; }
  size_t bytes() const override { return 0; }

  // Row `row` as f32 [K].
  void Read(uint32_t row, float* out) const;

 private:
  TensorView tensor_;
};

// kInvalidArgument if the tensor is not [N, K] of a known dtype with whole blocks.
Result<std::unique_ptr<Matrix>> MakeLookupTable(const TensorView& tensor);

}  // namespace muselet::cpu
