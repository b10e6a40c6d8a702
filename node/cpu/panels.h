// How weights lie in memory: panels of 8 output rows, so that the 8 lanes of a vector are 8 rows
// and every output is one sum over columns in order.
//
// Plain formats (F32, F16, BF16): a panel is [K][8] elements; rows past N are zeros.
// Block formats: a panel is K / 32 blocks of 8 rows x 32 columns. In a block, "vector t" is 32
// bytes that hold, for each of the 8 rows in turn, the columns 4t .. 4t + 3. Nibbles: byte i of the
// quarter j holds vector 2j in its low and vector 2j + 1 in its high half.
//   Q4_0   f16 d[8], 4 quarters of nibbles                                        144 bytes
//   Q4_1   f16 d[8], f16 m[8], 4 quarters of nibbles                              160 bytes
//   Q8_0   f16 d[8], vectors 0..7 as int8                                         272 bytes
//   Q5_0   f16 d[8], 4 quarters with the low 4 bits, 32 bytes with the high bits: bit t of byte r
//          belongs to byte r of vector t                                         176 bytes
//   Q5_1   f16 d[8], f16 m[8], the rest as Q5_0                                  192 bytes
//   Q4_K   f16 d[8], f16 e[8], scales [8], minima [8], 4 quarters of nibbles     176 bytes
//   Q5_K   the same, then high bits as in Q5_0                                   208 bytes
//   Q6_K   f16 d[8], int8 scale of columns 0..15 [8], of columns 16..31 [8],
//          4 quarters with the low 4 bits, then 2 x 32 bytes with the high bits:
//          bits 2i of byte r of part h belong to byte r of vector 4h + i           224 bytes
//
// This header is read by files that are compiled for one instruction set: plain data and
// declarations only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/device/dtype.h"

namespace muselet::cpu {

inline constexpr uint32_t kPanelRows = 8;
inline constexpr uint32_t kBlockColumns = 32;

struct PanelView {
  const std::byte* data = nullptr;
  size_t panel_bytes = 0;
  DType dtype = DType::kF32;
  uint32_t rows = 0;      // N; the last panel may be partly empty
  uint32_t columns = 0;   // K
  uint32_t segments = 1;  // equal parts of K whose partial sums are added by the tree
};

// Whether the values of a format are integers times a scale plus something.
constexpr bool HasMinimum(DType dtype) {
  return dtype == DType::kQ4_1 || dtype == DType::kQ5_1 || dtype == DType::kQ4_K ||
         dtype == DType::kQ5_K;
}

struct PanelBlockQ4_0 {
  uint16_t d[8];
  uint8_t q[128];
};
struct PanelBlockQ4_1 {
  uint16_t d[8];
  uint16_t m[8];
  uint8_t q[128];
};
struct PanelBlockQ8_0 {
  uint16_t d[8];
  int8_t q[256];
};
struct PanelBlockQ5_0 {
  uint16_t d[8];
  uint8_t q[128];
  uint8_t high[32];
};
struct PanelBlockQ5_1 {
  uint16_t d[8];
  uint16_t m[8];
  uint8_t q[128];
  uint8_t high[32];
};
struct PanelBlockQ4K {
  uint16_t d[8];
  uint16_t e[8];
  uint8_t scale[8];
  uint8_t minimum[8];
  uint8_t q[128];
};
struct PanelBlockQ5K {
  uint16_t d[8];
  uint16_t e[8];
  uint8_t scale[8];
  uint8_t minimum[8];
  uint8_t q[128];
  uint8_t high[32];
};
struct PanelBlockQ6K {
  uint16_t d[8];
  int8_t scale[2][8];
  uint8_t low[128];
  uint8_t high[64];
};
static_assert(sizeof(PanelBlockQ4_0) == 144 && sizeof(PanelBlockQ4_1) == 160);
static_assert(sizeof(PanelBlockQ5_0) == 176 && sizeof(PanelBlockQ5_1) == 192);
static_assert(sizeof(PanelBlockQ4K) == 176 && sizeof(PanelBlockQ5K) == 208);
static_assert(sizeof(PanelBlockQ8_0) == 272 && sizeof(PanelBlockQ6K) == 224);

}  // namespace muselet::cpu
