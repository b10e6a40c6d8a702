// Repeatable random inputs for the kernel tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/device/tensor.h"
#include "node/cpu/half.h"

namespace muselet::testing {

inline std::vector<float> RandomFloats(size_t count, uint32_t seed, float scale = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// A tensor [rows, columns] of any dtype with weights of about 0.05, and its bytes.
struct RandomTensor {
  RandomTensor(const RandomTensor&) = delete;
  RandomTensor(RandomTensor&&) = default;
  RandomTensor& operator=(RandomTensor&&) = default;
  RandomTensor(DType dtype, uint64_t rows, uint64_t columns, uint32_t seed) {
    view.dtype = dtype;
    view.rank = 2;
    view.shape = {rows, columns, 1, 1};
    bytes.resize(view.bytes());
    view.data = bytes.data();
    std::mt19937 random(seed);
    if (IsQuantized(dtype)) {
      FillBlocks(random);
    } else {
      FillPlain(seed);
    }
  }

  TensorView view;
  std::vector<std::byte> bytes;

 private:
  void FillBlocks(std::mt19937& random) {
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    const DTypeTraits traits = Traits(view.dtype);
    const size_t scale_at = view.dtype == DType::kQ6_K ? 208 : 0;
    std::normal_distribution<float> normal(0.0F, 1.0F);
    for (size_t at = 0; at < bytes.size(); at += traits.block_bytes) {
      const bool wide = traits.block_values > 32;
      PutHalf(at + scale_at, normal(random) * (wide ? 0.0001F : 0.01F));
      if (view.dtype == DType::kQ4_1 || view.dtype == DType::kQ5_1)
        PutHalf(at + 2, normal(random) * 0.05F);
      if (view.dtype == DType::kQ4_K || view.dtype == DType::kQ5_K)
        PutHalf(at + 2, normal(random) * 0.001F);
    }
  }
  void FillPlain(uint32_t seed) {
    const std::vector<float> values = RandomFloats(view.count(), seed, 0.05F);
    for (size_t i = 0; i < values.size(); ++i) {
      if (view.dtype == DType::kF32) std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      if (view.dtype == DType::kF16) PutHalf(2 * i, values[i]);
      if (view.dtype == DType::kBF16)
        std::memcpy(bytes.data() + 2 * i, reinterpret_cast<const char*>(&values[i]) + 2, 2);
    }
  }
  void PutHalf(size_t at, float value) {
    const uint16_t half = cpu::FloatToHalf(value);
    std::memcpy(bytes.data() + at, &half, sizeof(half));
  }
};

// True if both hold the same bits.
inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline constexpr DType kMatrixDTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                                          DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                          DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

}  // namespace muselet::testing
