// Products of panels with float activations: weights become f32 in registers, 32 columns at a time,
// then every column is one fma for 8 outputs.
#if defined(__AVX2__)

#include "node/cpu/avx2.h"

namespace muselet::cpu::avx2 {
namespace {

constexpr int kRowsMax = 4;

inline __m256 Values(__m256i q, __m256 step) {
  return _mm256_mul_ps(_mm256_cvtepi32_ps(q), step);
}

// Calls emit(column, integers of 8 rows) for the 32 columns of four quarters of nibbles.
template <typename Emit>
inline void ForEachNibble(const uint8_t* q, const Emit& emit) {
  const __m256i low = _mm256_set1_epi32(15);
  for (int quarter = 0; quarter < 4; ++quarter) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + 32 * quarter));
    for (int i = 0; i < 8; ++i) {
      const int shift = 8 * (i % 4) + 4 * (i / 4);
      emit(8 * quarter + i, _mm256_and_si256(_mm256_srli_epi32(v, shift), low));
    }
  }
}

inline void Decode(const PanelBlockQ4_0& block, float* out) {
  const __m256 d = LoadHalves(block.d);
  ForEachNibble(block.q, [&](int column, __m256i q) {
    _mm256_store_ps(out + 8 * column, Values(_mm256_sub_epi32(q, _mm256_set1_epi32(8)), d));
  });
}

inline void Decode(const PanelBlockQ4_1& block, float* out) {
  const __m256 d = LoadHalves(block.d), m = LoadHalves(block.m);
  ForEachNibble(block.q, [&](int column, __m256i q) {
    _mm256_store_ps(out + 8 * column, _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), d, m));
  });
}

inline void Decode(const PanelBlockQ8_0& block, float* out) {
  const __m256 d = LoadHalves(block.d);
  for (int column = 0; column < 32; ++column) {
    const __m256i v =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.q + 32 * (column / 4)));
    const __m256i q = _mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * (column % 4)), 24);
    _mm256_store_ps(out + 8 * column, Values(q, d));
  }
}

// The same with a fifth bit each.
template <typename Emit>
inline void ForEachFiveBits(const uint8_t* q, const uint8_t* high, const Emit& emit) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high));
  ForEachNibble(q, [&](int column, __m256i nibble) {
    const __m256i bit = _mm256_and_si256(_mm256_srli_epi32(bits, 8 * (column % 4) + column / 4),
                                         _mm256_set1_epi32(1));
    emit(column, _mm256_or_si256(nibble, _mm256_slli_epi32(bit, 4)));
  });
}

inline void Decode(const PanelBlockQ5_0& block, float* out) {
  const __m256 d = LoadHalves(block.d);
  ForEachFiveBits(block.q, block.high, [&](int column, __m256i q) {
    _mm256_store_ps(out + 8 * column, Values(_mm256_sub_epi32(q, _mm256_set1_epi32(16)), d));
  });
}

// Products are exact, so that the fma rounds once, like the sum.
inline void Decode(const PanelBlockQ5_1& block, float* out) {
  const __m256 d = LoadHalves(block.d), m = LoadHalves(block.m);
  ForEachFiveBits(block.q, block.high, [&](int column, __m256i q) {
    _mm256_store_ps(out + 8 * column, _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), d, m));
  });
}

inline void Decode(const PanelBlockQ4K& block, float* out) {
  const __m256 scale = Scaled(block.d, block.scale), minimum = Scaled(block.e, block.minimum);
  ForEachNibble(block.q, [&](int column, __m256i q) {
    _mm256_store_ps(out + 8 * column, _mm256_fmsub_ps(_mm256_cvtepi32_ps(q), scale, minimum));
  });
}

inline void Decode(const PanelBlockQ5K& block, float* out) {
  const __m256 scale = Scaled(block.d, block.scale), minimum = Scaled(block.e, block.minimum);
  ForEachFiveBits(block.q, block.high, [&](int column, __m256i q) {
    _mm256_store_ps(out + 8 * column, _mm256_fmsub_ps(_mm256_cvtepi32_ps(q), scale, minimum));
  });
}

inline void Decode(const PanelBlockQ6K& block, float* out) {
  const __m256 d = LoadHalves(block.d);
  __m256 step[2];
  for (int part = 0; part < 2; ++part) {
    const __m128i scale = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block.scale[part]));
    step[part] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scale)));
  }
  ForEachNibble(block.low, [&](int column, __m256i nibble) {
    const int vector = column / 4;
    const __m256i v =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.high + 32 * (vector / 4)));
    const __m256i top = _mm256_and_si256(_mm256_srli_epi32(v, 8 * (column % 4) + 2 * (vector % 4)),
                                         _mm256_set1_epi32(3));
    const __m256i q =
        _mm256_sub_epi32(_mm256_or_si256(nibble, _mm256_slli_epi32(top, 4)), _mm256_set1_epi32(32));
    _mm256_store_ps(out + 8 * column, Values(q, step[column / 16]));
  });
}

// The formats that are multiplied less often, out of the way of the others' loop.
__attribute__((noinline)) void DecodeFurther(DType dtype, const std::byte* data, uint32_t block,
                                             float* buffer) {
  switch (dtype) {
    case DType::kQ5_0:
      return Decode(reinterpret_cast<const PanelBlockQ5_0*>(data)[block], buffer);
    case DType::kQ5_1:
      return Decode(reinterpret_cast<const PanelBlockQ5_1*>(data)[block], buffer);
    case DType::kQ4_K:
      return Decode(reinterpret_cast<const PanelBlockQ4K*>(data)[block], buffer);
    case DType::kQ5_K:
      return Decode(reinterpret_cast<const PanelBlockQ5K*>(data)[block], buffer);
    default:
      return;  // ruled out by the contract
  }
}

// Columns [column, column + count) of a panel as f32 [count][8]: in place, or decoded to `buffer`.
// REQUIRES: count <= 32; of quantised weights, column a multiple of 32.
__attribute__((always_inline)) inline const float* Columns(const PanelView& weight, uint32_t panel,
                                                           uint32_t column, uint32_t count,
                                                           float* buffer) {
  const std::byte* data = weight.data + panel * weight.panel_bytes;
  const uint32_t block = column / kBlockColumns;
  switch (weight.dtype) {
    case DType::kF32:
      return reinterpret_cast<const float*>(data) + static_cast<size_t>(column) * kPanelRows;
    case DType::kF16:
      for (uint32_t i = 0; i < count; ++i)
        _mm256_store_ps(buffer + 8 * i, LoadHalves(data + (column + i) * size_t{16}));
      break;
    case DType::kBF16:
      for (uint32_t i = 0; i < count; ++i) {
        const __m128i bits =
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + (column + i) * size_t{16}));
        const __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
        _mm256_store_ps(buffer + 8 * i, _mm256_castsi256_ps(wide));
      }
      break;
    case DType::kQ4_0:
      Decode(reinterpret_cast<const PanelBlockQ4_0*>(data)[block], buffer);
      break;
    case DType::kQ4_1:
      Decode(reinterpret_cast<const PanelBlockQ4_1*>(data)[block], buffer);
      break;
    case DType::kQ8_0:
      Decode(reinterpret_cast<const PanelBlockQ8_0*>(data)[block], buffer);
      break;
    case DType::kQ6_K:
      Decode(reinterpret_cast<const PanelBlockQ6K*>(data)[block], buffer);
      break;
    default:
      DecodeFurther(weight.dtype, data, block, buffer);
  }
  return buffer;
}

// kRows rows of activations times kPanels panels.
template <int kRows, int kPanels>
void MultiplyPanels(const MatMulTile& tile, uint32_t panel, uint32_t row) {
  constexpr int kSums = kRows * kPanels;
  const uint32_t columns = tile.weight.columns;
  const uint32_t width = columns / tile.weight.segments;
  const float* x = tile.x + static_cast<size_t>(row) * columns;
  alignas(32) float buffer[kPanels][kBlockColumns * kPanelRows];
  PartialSums<kSums> sums;
  for (uint32_t begin = 0; begin < columns; begin += width) {
    __m256 acc[kSums];
    for (int i = 0; i < kSums; ++i) acc[i] = _mm256_setzero_ps();
    for (uint32_t k = begin; k < begin + width; k += kBlockColumns) {
      const uint32_t left = begin + width - k;
      const uint32_t count = left < kBlockColumns ? left : kBlockColumns;
      const float* w[kPanels];
      for (int p = 0; p < kPanels; ++p)
        w[p] = Columns(tile.weight, panel + static_cast<uint32_t>(p), k, count, buffer[p]);
      for (uint32_t i = 0; i < count; ++i) {
        __m256 column[kPanels];
        for (int p = 0; p < kPanels; ++p) column[p] = _mm256_loadu_ps(w[p] + 8 * i);
        for (int m = 0; m < kRows; ++m) {
          const __m256 input = _mm256_broadcast_ss(x + static_cast<size_t>(m) * columns + k + i);
          for (int p = 0; p < kPanels; ++p)
            acc[m * kPanels + p] = _mm256_fmadd_ps(input, column[p], acc[m * kPanels + p]);
        }
      }
    }
    sums.Add(acc);
  }
  sums.Finish();
  for (int m = 0; m < kRows; ++m)
    for (int p = 0; p < kPanels; ++p)
      StoreOutputs(tile, panel + static_cast<uint32_t>(p), row + static_cast<uint32_t>(m),
                   sums.stack[0][m * kPanels + p]);
}

template <int kRows>
void MultiplyRows(const MatMulTile& tile, uint32_t row) {
  constexpr int kPanels = kRows <= 2 ? 4 : 2;  // enough sums in flight to hide the fma's latency
  uint32_t panel = tile.panel_begin;
  for (; panel + kPanels <= tile.panel_end; panel += kPanels)
    MultiplyPanels<kRows, kPanels>(tile, panel, row);
  for (; panel < tile.panel_end; ++panel) MultiplyPanels<kRows, 1>(tile, panel, row);
}

}  // namespace

void MatMulFloat(const MatMulTile& tile) {
  uint32_t row = tile.row_begin;
  for (; row + kRowsMax <= tile.row_end; row += kRowsMax) MultiplyRows<kRowsMax>(tile, row);
  switch (tile.row_end - row) {
    case 3:
      return MultiplyRows<3>(tile, row);
    case 2:
      return MultiplyRows<2>(tile, row);
    case 1:
      return MultiplyRows<1>(tile, row);
    default:
      return;
  }
}

}  // namespace muselet::cpu::avx2

#endif
