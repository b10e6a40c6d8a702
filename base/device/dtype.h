// Element formats of tensors, and the block formats of GGUF. The byte layouts are those of the GGUF
// specification (ggml-org/ggml docs/gguf.md and the block structs it names): little-endian, a block
// is the smallest unit.
#pragma once

#include <cstdint>
#include <string_view>

namespace muselet {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI8,
  kQ8_0,  // 32 values: f16 d, 32 x i8 q;              x = d * q
  kQ4_0,  // 32 values: f16 d, 16 bytes of 4-bit q;    x = d * (q - 8); low nibbles are values
          // 0..15, high are 16..31
  kQ4_1,  // 32 values: f16 d, f16 m, 16 bytes of q;   x = d * q + m; nibbles as in Q4_0
  kQ5_0,  // 32 values: f16 d, 32 high bits, 16 bytes of low nibbles; x = d * (q - 16); high bit i
          // belongs to value i, nibbles as in Q4_0
  kQ5_1,  // 32 values: f16 d, f16 m, the rest as Q5_0;  x = d * q + m
  kQ4_K,  // 256 values in 8 groups: f16 d, f16 e, 12 bytes of 6-bit scales and minima, 128 bytes of
          // 4-bit q; x = d * scale * q - e * minimum
  kQ5_K,  // the same with 32 bytes of high bits before the nibbles
  kQ6_K,  // 256 values: 128 low nibbles bytes, 64 bytes of 2 high bits, 16 x i8 scales, f16 d; x =
          // d * scale * (q - 32)
};

struct DTypeTraits {
  std::string_view name;  // "f32", "q4_1", ...
  uint32_t block_values;  // values in a block; 1 for plain formats
  uint32_t block_bytes;
};

constexpr DTypeTraits Traits(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {"f32", 1, 4};
    case DType::kF16:
      return {"f16", 1, 2};
    case DType::kBF16:
      return {"bf16", 1, 2};
    case DType::kI8:
      return {"i8", 1, 1};
    case DType::kQ8_0:
      return {"q8_0", 32, 34};
    case DType::kQ4_0:
      return {"q4_0", 32, 18};
    case DType::kQ4_1:
      return {"q4_1", 32, 20};
    case DType::kQ5_0:
      return {"q5_0", 32, 22};
    case DType::kQ5_1:
      return {"q5_1", 32, 24};
    case DType::kQ4_K:
      return {"q4_k", 256, 144};
    case DType::kQ5_K:
      return {"q5_k", 256, 176};
    case DType::kQ6_K:
      return {"q6_k", 256, 210};
  }
  return {"unknown", 1, 1};
}

constexpr bool IsQuantized(DType dtype) {
  return Traits(dtype).block_values > 1;
}

}  // namespace muselet
