#include "base/device/dequantize.h"

#include <bit>
#include <cstring>
#include <string>

namespace muselet {
namespace {

template <typename T>
T Load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

uint32_t Byte(const std::byte* bytes, size_t index) {
  return std::to_integer<uint32_t>(bytes[index]);
}

float LoadHalf(const std::byte* bytes) {
  return HalfToFloat(Load<uint16_t>(bytes));
}

void DequantizeQ8_0(const std::byte* block, float* out) {
  const float scale = LoadHalf(block);
  for (size_t i = 0; i < 32; ++i) {
    out[i] = scale * static_cast<float>(Load<int8_t>(block + 2 + i));
  }
}

void DequantizeQ4_0(const std::byte* block, float* out) {
  const float scale = LoadHalf(block);
  for (size_t i = 0; i < 16; ++i) {
    const auto pair = static_cast<int>(Byte(block + 2, i));
    out[i] = scale * static_cast<float>((pair & 15) - 8);
    out[i + 16] = scale * static_cast<float>((pair >> 4) - 8);
  }
}

void DequantizeQ4_1(const std::byte* block, float* out) {
  const float scale = LoadHalf(block);
  const float minimum = LoadHalf(block + 2);
  for (size_t i = 0; i < 16; ++i) {
    const uint32_t pair = Byte(block + 4, i);
    out[i] = scale * static_cast<float>(pair & 15U) + minimum;
    out[i + 16] = scale * static_cast<float>(pair >> 4U) + minimum;
  }
}

uint32_t HighBit(uint32_t bits, size_t index) {
  return ((bits >> index) & 1U) << 4U;
}

void DequantizeQ5_0(const std::byte* block, float* out) {
  const float scale = LoadHalf(block);
  const auto high = Load<uint32_t>(block + 2);
  for (size_t i = 0; i < 16; ++i) {
    const uint32_t pair = Byte(block + 6, i);
    out[i] = scale * static_cast<float>(static_cast<int>((pair & 15U) | HighBit(high, i)) - 16);
    out[i + 16] =
        scale * static_cast<float>(static_cast<int>((pair >> 4U) | HighBit(high, i + 16)) - 16);
  }
}

void DequantizeQ5_1(const std::byte* block, float* out) {
  const float scale = LoadHalf(block);
  const float minimum = LoadHalf(block + 2);
  const auto high = Load<uint32_t>(block + 4);
  for (size_t i = 0; i < 16; ++i) {
    const uint32_t pair = Byte(block + 8, i);
    out[i] = scale * static_cast<float>((pair & 15U) | HighBit(high, i)) + minimum;
    out[i + 16] = scale * static_cast<float>((pair >> 4U) | HighBit(high, i + 16)) + minimum;
  }
}

// Group g has the low (g even) or high nibbles of bytes 32 * (g / 2) .. + 31, and bit g of the high
// bytes if there are any.
void DequantizeGroups(const std::byte* block, const std::byte* high, const std::byte* low,
                      float* out) {
  const float d = LoadHalf(block), e = LoadHalf(block + 2);
  for (uint32_t group = 0; group < 8; ++group) {
    const GroupScale six = ReadGroupScale(block, group);
    const float scale = d * static_cast<float>(six.scale);
    const float minimum = e * static_cast<float>(six.minimum);
    for (size_t i = 0; i < 32; ++i) {
      uint32_t q = (Byte(low, 32 * (group / 2) + i) >> (4 * (group % 2))) & 15U;
      if (high != nullptr) q |= HighBit(Byte(high, i), group);
      out[32 * group + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

// Two halves of 128 values. In a half, value 32 * g + i (g = 0..3) has its low nibble in byte
// 32 * (g % 2) + i of 64 (low nibbles first, g < 2), its two high bits in byte i of 32 at bit
// 2 * g, and scale 2 * g + i / 16 of 8.
void DequantizeQ6_K(const std::byte* block, float* out) {
  const float scale = LoadHalf(block + 208);
  for (size_t half = 0; half < 2; ++half) {
    const std::byte* low = block + 64 * half;
    const std::byte* high = block + 128 + 32 * half;
    const std::byte* scales = block + 192 + 8 * half;
    for (size_t group = 0; group < 4; ++group) {
      for (size_t i = 0; i < 32; ++i) {
        const uint32_t nibbles = Byte(low, 32 * (group % 2) + i);
        const uint32_t low_bits = group < 2 ? nibbles & 15U : nibbles >> 4U;
        const uint32_t high_bits = (Byte(high, i) >> (2 * group)) & 3U;
        const int quantum = static_cast<int>(low_bits | (high_bits << 4U)) - 32;
        const auto block_scale = static_cast<float>(Load<int8_t>(scales + 2 * group + i / 16));
        out[128 * half + 32 * group + i] = scale * block_scale * static_cast<float>(quantum);
      }
    }
  }
}

void DequantizeBlock(DType dtype, const std::byte* block, float* out) {
  switch (dtype) {
    case DType::kF32:
      *out = Load<float>(block);
      return;
    case DType::kF16:
      *out = LoadHalf(block);
      return;
    case DType::kBF16:
      *out = BFloat16ToFloat(Load<uint16_t>(block));
      return;
    case DType::kI8:
      *out = static_cast<float>(Load<int8_t>(block));
      return;
    case DType::kQ8_0:
      return DequantizeQ8_0(block, out);
    case DType::kQ4_0:
      return DequantizeQ4_0(block, out);
    case DType::kQ4_1:
      return DequantizeQ4_1(block, out);
    case DType::kQ5_0:
      return DequantizeQ5_0(block, out);
    case DType::kQ5_1:
      return DequantizeQ5_1(block, out);
    case DType::kQ4_K:
      return DequantizeGroups(block, nullptr, block + 16, out);
    case DType::kQ5_K:
      return DequantizeGroups(block, block + 16, block + 48, out);
    case DType::kQ6_K:
      return DequantizeQ6_K(block, out);
  }
}

}  // namespace

GroupScale ReadGroupScale(const std::byte* block, uint32_t group) {
  const std::byte* bytes = block + 4;
  if (group < 4) return {Byte(bytes, group) & 63U, Byte(bytes, group + 4) & 63U};
  const uint32_t low = Byte(bytes, group + 4);
  return {(low & 15U) | (Byte(bytes, group - 4) >> 6U << 4U),
          (low >> 4U) | (Byte(bytes, group) >> 6U << 4U)};
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = (half & 0x8000U) << 16U;
  const uint32_t exponent = (half >> 10U) & 31U;
  const uint32_t fraction = half & 0x3FFU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000U | (fraction << 13U));
  if (exponent != 0) {
    return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (fraction << 13U));
  }
  const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

float BFloat16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16U);
}

Status DequantizeRow(DType dtype, const std::byte* blocks, uint64_t count, float* out) {
  const DTypeTraits traits = Traits(dtype);
  if (count % traits.block_values != 0) {
    return InvalidArgument(std::to_string(count) + " values are not whole blocks of " +
                           std::string(traits.name));
  }
  for (uint64_t i = 0; i < count / traits.block_values; ++i) {
    DequantizeBlock(dtype, blocks + i * traits.block_bytes, out + i * traits.block_values);
  }
  return OkStatus();
}

}  // namespace muselet
