// Products of block-quantised panels with int8 activations, over the integer sum of a block (`Dot`)
// that each instruction set has its own way for: exact integer sums of 32 columns for 8 outputs at
// once, then one or two fma a block.
//
// A Dot has three static templates over the number of rows kRows; each leaves the sums of one block
// of weights with kRows rows of activations in dot[kRows], a lane an output:
//   Nibbles(q, x, dot)      weights 0..15
//   FiveBits(q, high, x, dot)  weights 0..31
//   SignedBytes(q, x, dot)  weights -128..127
//   SixBits(block, x, dot)  weights -32..31, times the scale of their half of the block
//
// Like avx2.h: only for files that are compiled for one instruction set; everything is static.
#pragma once

#include "node/cpu/avx2.h"

namespace muselet::cpu {
namespace {

// Rows of activations that one pass over a panel serves: as many as the 16 registers hold.
constexpr int kNibbleRows = 6;
constexpr int kByteRows = 4;

// Four neighbouring activations in every lane.
inline __m256i Broadcast4(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, sizeof(four));
  return _mm256_set1_epi32(four);
}

// Integer sums may be regrouped by the compiler, which then runs out of registers: this holds it to
// the order as written.
inline void KeepInRegister(__m256i& value) {
  asm("" : "+x"(value));
}

// Where the activations of one block of kRows rows are.
struct BlockInput {
  const int8_t* q;
  const float* scale;
  const float* sum;
  const int32_t* total;
  size_t stride;  // blocks of a row

  const int8_t* row(int i) const { return q + i * stride * kBlockColumns; }
};

// The block's contribution, as the scalar kernel states it.
template <int kRows>
inline void AddScaled(const __m256i (&dot)[kRows], __m256 d, const BlockInput& x,
                      __m256 (&acc)[kRows]) {
  for (int i = 0; i < kRows; ++i) {
    const __m256 scaled =
        _mm256_mul_ps(_mm256_cvtepi32_ps(dot[i]), _mm256_broadcast_ss(x.scale + i * x.stride));
    acc[i] = _mm256_fmadd_ps(scaled, d, acc[i]);
  }
}

template <typename Dot, int kRows>
inline void AddBlock(const PanelBlockQ4_1& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  Dot::template Nibbles<kRows>(w.q, x, dot);
  AddScaled<kRows>(dot, avx2::LoadHalves(w.d), x, acc);
  const __m256 m = avx2::LoadHalves(w.m);
  for (int i = 0; i < kRows; ++i)
    acc[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(x.sum + i * x.stride), m, acc[i]);
}

template <typename Dot, int kRows>
inline void AddBlock(const PanelBlockQ4_0& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  Dot::template Nibbles<kRows>(w.q, x, dot);
  for (int i = 0; i < kRows; ++i)
    dot[i] = _mm256_sub_epi32(dot[i], _mm256_set1_epi32(8 * x.total[i * x.stride]));
  AddScaled<kRows>(dot, avx2::LoadHalves(w.d), x, acc);
}

// What a format's minimum adds.
template <int kRows>
inline void AddMinimum(__m256 m, const BlockInput& x, __m256 (&acc)[kRows]) {
  for (int i = 0; i < kRows; ++i)
    acc[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(x.sum + i * x.stride), m, acc[i]);
}

template <int kRows>
inline void SubtractMinimum(__m256 m, const BlockInput& x, __m256 (&acc)[kRows]) {
  for (int i = 0; i < kRows; ++i)
    acc[i] = _mm256_fnmadd_ps(_mm256_broadcast_ss(x.sum + i * x.stride), m, acc[i]);
}

template <typename Dot, int kRows>
inline void AddBlock(const PanelBlockQ5_0& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  Dot::template FiveBits<kRows>(w.q, w.high, x, dot);
  for (int i = 0; i < kRows; ++i)
    dot[i] = _mm256_sub_epi32(dot[i], _mm256_set1_epi32(16 * x.total[i * x.stride]));
  AddScaled<kRows>(dot, avx2::LoadHalves(w.d), x, acc);
}

template <typename Dot, int kRows>
inline void AddBlock(const PanelBlockQ5_1& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  Dot::template FiveBits<kRows>(w.q, w.high, x, dot);
  AddScaled<kRows>(dot, avx2::LoadHalves(w.d), x, acc);
  AddMinimum<kRows>(avx2::LoadHalves(w.m), x, acc);
}

template <typename Dot, int kRows>
inline void AddBlock(const PanelBlockQ4K& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  Dot::template Nibbles<kRows>(w.q, x, dot);
  AddScaled<kRows>(dot, avx2::Scaled(w.d, w.scale), x, acc);
  SubtractMinimum<kRows>(avx2::Scaled(w.e, w.minimum), x, acc);
}

template <typename Dot, int kRows>
inline void AddBlock(const PanelBlockQ5K& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  Dot::template FiveBits<kRows>(w.q, w.high, x, dot);
  AddScaled<kRows>(dot, avx2::Scaled(w.d, w.scale), x, acc);
  SubtractMinimum<kRows>(avx2::Scaled(w.e, w.minimum), x, acc);
}

template <typename Dot, int kRows>
inline void AddBlock(const PanelBlockQ8_0& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  Dot::template SignedBytes<kRows>(w.q, x, dot);
  AddScaled<kRows>(dot, avx2::LoadHalves(w.d), x, acc);
}

template <typename Dot, int kRows>
inline void AddBlock(const PanelBlockQ6K& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  Dot::template SixBits<kRows>(w, x, dot);
  AddScaled<kRows>(dot, avx2::LoadHalves(w.d), x, acc);
}

// The weights of 8 columns, as two neighbouring vectors (panels.h) of unsigned bytes.
struct ByteVectors {
  __m256i first, second;
};

inline ByteVectors LoadNibbles(const uint8_t* q, int quarter) {
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + 32 * quarter));
  return {_mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16(both, 4), low)};
}

// Vectors 2 * quarter and 2 * quarter + 1.
inline ByteVectors LoadFiveBits(const uint8_t* q, __m256i high, int quarter) {
  const __m256i one = _mm256_set1_epi8(1);
  const ByteVectors low = LoadNibbles(q, quarter);
  const __m256i first = _mm256_and_si256(_mm256_srli_epi16(high, 2 * quarter), one);
  const __m256i second = _mm256_and_si256(_mm256_srli_epi16(high, 2 * quarter + 1), one);
  return {_mm256_or_si256(low.first, _mm256_slli_epi16(first, 4)),
          _mm256_or_si256(low.second, _mm256_slli_epi16(second, 4))};
}

// Vectors 2 * half and 2 * half + 1 of a part.
inline ByteVectors LoadSixBits(const PanelBlockQ6K& w, int part, int half) {
  const __m256i top = _mm256_set1_epi8(3);
  const ByteVectors low = LoadNibbles(w.low, 2 * part + half);
  __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.high + 32 * part));
  if (half == 1) bits = _mm256_srli_epi16(bits, 4);
  const __m256i next = _mm256_srli_epi16(bits, 2);
  return {_mm256_or_si256(low.first, _mm256_slli_epi16(_mm256_and_si256(bits, top), 4)),
          _mm256_or_si256(low.second, _mm256_slli_epi16(_mm256_and_si256(next, top), 4))};
}

// Asks for the weights that are needed some blocks later: with so few outputs at once the
// processor's own prefetching stays a fifth below what the memory can deliver. The address may lie
// past the matrix; a prefetch never faults.
template <typename Block>
inline void PrefetchAhead(const Block& block) {
  constexpr size_t kAheadBytes = 2048, kLineBytes = 64;
  const char* ahead = reinterpret_cast<const char*>(&block) + kAheadBytes;
  for (size_t line = 0; line < sizeof(Block); line += kLineBytes)
    _mm_prefetch(ahead + line, _MM_HINT_T0);
}

// How a tile's blocks are laid out.
struct BlockCounts {
  uint32_t blocks;   // of a row
  uint32_t segment;  // of a segment
};

// Blocks [begin, end) of a panel, `x` being the inputs of block 0.
template <typename Dot, typename Block, int kRows>
inline void AddBlocks(const Block* panel, const BlockInput& x, uint32_t begin, uint32_t end,
                      __m256 (&acc)[kRows]) {
  for (int i = 0; i < kRows; ++i) acc[i] = _mm256_setzero_ps();
  for (uint32_t b = begin; b < end; ++b) {
    PrefetchAhead(panel[b]);
    AddBlock<Dot, kRows>(
        panel[b], {x.q + b * kBlockColumns, x.scale + b, x.sum + b, x.total + b, x.stride}, acc);
  }
}

template <typename Dot, typename Block, int kRows>
void MultiplyPanel(const MatMulTile& tile, const BlockCounts& counts, uint32_t panel,
                   uint32_t row) {
  const auto* blocks =
      reinterpret_cast<const Block*>(tile.weight.data + panel * tile.weight.panel_bytes);
  const QuantizedRows& in = tile.quantized;
  const size_t first = static_cast<size_t>(row) * counts.blocks;
  const BlockInput x = {in.q + first * kBlockColumns, in.scale + first, in.sum + first,
                        in.total + first, counts.blocks};
  __m256 acc[kRows];
  if (counts.segment == counts.blocks) {
    AddBlocks<Dot, Block, kRows>(blocks, x, 0, counts.blocks, acc);
    for (int i = 0; i < kRows; ++i)
      avx2::StoreOutputs(tile, panel, row + static_cast<uint32_t>(i), acc[i]);
    return;
  }
  avx2::PartialSums<kRows> sums;
  for (uint32_t begin = 0; begin < counts.blocks; begin += counts.segment) {
    AddBlocks<Dot, Block, kRows>(blocks, x, begin, begin + counts.segment, acc);
    sums.Add(acc);
  }
  sums.Finish();
  for (int i = 0; i < kRows; ++i)
    avx2::StoreOutputs(tile, panel, row + static_cast<uint32_t>(i), sums.stack[0][i]);
}

// `rows` <= kRows rows.
template <typename Dot, typename Block, int kRows>
void MultiplyRows(const MatMulTile& tile, const BlockCounts& counts, uint32_t panel, uint32_t row,
                  uint32_t rows) {
  if constexpr (kRows > 0) {
    if (rows == kRows)
      MultiplyPanel<Dot, Block, kRows>(tile, counts, panel, row);
    else
      MultiplyRows<Dot, Block, kRows - 1>(tile, counts, panel, row, rows);
  }
}

template <typename Dot, typename Block, int kRows>
void MultiplyTile(const MatMulTile& tile) {
  const BlockCounts counts = {tile.quantized.blocks, tile.quantized.blocks / tile.weight.segments};
  const uint32_t rows = tile.row_end - tile.row_begin;
  // Groups of nearly equal size: unpacking a weight for few rows costs as much as for many.
  const uint32_t groups = (rows + kRows - 1) / kRows;
  for (uint32_t panel = tile.panel_begin; panel < tile.panel_end; ++panel) {
    uint32_t row = tile.row_begin;
    for (uint32_t left = groups; left > 0; --left) {
      const uint32_t count = (tile.row_end - row + left - 1) / left;
      MultiplyRows<Dot, Block, kRows>(tile, counts, panel, row, count);
      row += count;
    }
  }
}

template <typename Dot>
void MultiplyInt8(const MatMulTile& tile) {
  switch (tile.weight.dtype) {
    case DType::kQ4_0:
      return MultiplyTile<Dot, PanelBlockQ4_0, kNibbleRows>(tile);
    case DType::kQ4_1:
      return MultiplyTile<Dot, PanelBlockQ4_1, kNibbleRows>(tile);
    case DType::kQ8_0:
      return MultiplyTile<Dot, PanelBlockQ8_0, kByteRows>(tile);
    case DType::kQ5_0:
      return MultiplyTile<Dot, PanelBlockQ5_0, kByteRows>(tile);
    case DType::kQ5_1:
      return MultiplyTile<Dot, PanelBlockQ5_1, kByteRows>(tile);
    case DType::kQ4_K:
      return MultiplyTile<Dot, PanelBlockQ4K, kNibbleRows>(tile);
    case DType::kQ5_K:
      return MultiplyTile<Dot, PanelBlockQ5K, kByteRows>(tile);
    case DType::kQ6_K:
      return MultiplyTile<Dot, PanelBlockQ6K, kByteRows>(tile);
    default:
      return;  // not a block format; ruled out by the contract
  }
}

}  // namespace
}  // namespace muselet::cpu
