// The memory behind rounded activations.
#pragma once

#include <cstdint>
#include <vector>

#include "node/cpu/kernels.h"

namespace muselet::cpu {

// Owns the rounded rows of one product at a time; grown to the largest, then kept. Not
// synchronised.
class QuantizedBuffer {
 public:
  // Room for `rows` rows of `width` values, a multiple of 32.
  QuantizedRows Reserve(uint32_t rows, uint32_t width) {
    const size_t blocks = size_t{rows} * (width / kBlockColumns);
    if (scale_.size() < blocks) {
      q_.resize(blocks * kBlockColumns);
      scale_.resize(blocks);
      sum_.resize(blocks);
      total_.resize(blocks);
    }
    return {q_.data(), scale_.data(), sum_.data(), total_.data(), width / kBlockColumns};
  }

 private:
  std::vector<int8_t> q_;
  std::vector<float> scale_, sum_;
  std::vector<int32_t> total_;
};

}  // namespace muselet::cpu
