// Products of block-quantised panels with int8 activations: exact integer sums of 32 columns for 8
// outputs at once, then one or two fma a block.
#if defined(__AVX2__)

#include "node/cpu/avx2.h"

namespace muselet::cpu::avx2 {
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

// Sums of 32 products for 8 outputs and kRows rows of activations, `x` being `stride` apart, in
// which `w` are unsigned: pairs stay within 16 bits for w <= 15 (8 pairs of 15 * 127).
template <int kRows>
inline void DotNibbles(const uint8_t* q, const int8_t* x, size_t stride, __m256i (&dot)[kRows]) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i sum[kRows];
  for (int quarter = 0; quarter < 4; ++quarter) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + 32 * quarter));
    const __m256i first = _mm256_and_si256(both, low);
    const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    for (int i = 0; i < kRows; ++i) {
      const int8_t* at = x + i * stride + 8 * quarter;
      const __m256i pairs = _mm256_maddubs_epi16(first, Broadcast4(at));
      sum[i] = quarter == 0 ? pairs : _mm256_add_epi16(sum[i], pairs);
      KeepInRegister(sum[i]);
      sum[i] = _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(second, Broadcast4(at + 4)));
      KeepInRegister(sum[i]);
    }
  }
  const __m256i one = _mm256_set1_epi16(1);
  for (int i = 0; i < kRows; ++i) dot[i] = _mm256_madd_epi16(sum[i], one);
}

// Where the activations of one block of kRows rows are.
struct BlockInput {
  const int8_t* q;
  const float* scale;
  const float* sum;
  const int32_t* total;
  size_t stride;  // blocks of a row
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

template <int kRows>
inline void AddBlock(const PanelBlockQ4_1& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  DotNibbles<kRows>(w.q, x.q, x.stride * kBlockColumns, dot);
  AddScaled<kRows>(dot, LoadHalves(w.d), x, acc);
  const __m256 m = LoadHalves(w.m);
  for (int i = 0; i < kRows; ++i)
    acc[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(x.sum + i * x.stride), m, acc[i]);
}

template <int kRows>
inline void AddBlock(const PanelBlockQ4_0& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  __m256i dot[kRows];
  DotNibbles<kRows>(w.q, x.q, x.stride * kBlockColumns, dot);
  for (int i = 0; i < kRows; ++i)
    dot[i] = _mm256_sub_epi32(dot[i], _mm256_set1_epi32(8 * x.total[i * x.stride]));
  AddScaled<kRows>(dot, LoadHalves(w.d), x, acc);
}

// Signed weights: |w| times x with the sign of w; a pair is at most 2 * 128 * 127 and fits.
template <int kRows>
inline void AddBlock(const PanelBlockQ8_0& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  const __m256i one = _mm256_set1_epi16(1);
  __m256i dot[kRows];
  for (int i = 0; i < kRows; ++i) dot[i] = _mm256_setzero_si256();
  for (int vector = 0; vector < 8; ++vector) {
    const __m256i q = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.q + 32 * vector));
    const __m256i magnitude = _mm256_abs_epi8(q);
    for (int i = 0; i < kRows; ++i) {
      const __m256i input = Broadcast4(x.q + i * x.stride * kBlockColumns + 4 * vector);
      const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(input, q));
      dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs, one));
      KeepInRegister(dot[i]);
    }
  }
  AddScaled<kRows>(dot, LoadHalves(w.d), x, acc);
}

// Unsigned 6-bit weights, two vectors a 16-bit sum; 32 is taken off as 32 times the sum of x.
template <int kRows>
inline void AddBlock(const PanelBlockQ6K& w, const BlockInput& x, __m256 (&acc)[kRows]) {
  const __m256i low = _mm256_set1_epi8(15), top = _mm256_set1_epi8(3), one = _mm256_set1_epi8(1);
  __m256i dot[kRows];
  for (int i = 0; i < kRows; ++i) dot[i] = _mm256_setzero_si256();
  for (int part = 0; part < 2; ++part) {
    const __m256i scale =
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w.scale[part])));
    // The scale in both 16-bit halves of a lane.
    const __m256i scale16 = _mm256_or_si256(_mm256_and_si256(scale, _mm256_set1_epi32(0xFFFF)),
                                            _mm256_slli_epi32(scale, 16));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.high + 32 * part));
    for (int half = 0; half < 2; ++half) {
      const __m256i both =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.low + 32 * (2 * part + half)));
      const __m256i bits = half == 0 ? high : _mm256_srli_epi16(high, 4);
      const __m256i first = _mm256_or_si256(_mm256_and_si256(both, low),
                                            _mm256_slli_epi16(_mm256_and_si256(bits, top), 4));
      const __m256i second =
          _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(both, 4), low),
                          _mm256_slli_epi16(_mm256_and_si256(_mm256_srli_epi16(bits, 2), top), 4));
      for (int i = 0; i < kRows; ++i) {
        const int8_t* at = x.q + i * x.stride * kBlockColumns + 16 * part + 8 * half;
        const __m256i a = Broadcast4(at), b = Broadcast4(at + 4);
        const __m256i pairs =
            _mm256_add_epi16(_mm256_maddubs_epi16(first, a), _mm256_maddubs_epi16(second, b));
        const __m256i inputs =
            _mm256_add_epi16(_mm256_maddubs_epi16(one, a), _mm256_maddubs_epi16(one, b));
        // |pairs| <= 2 * 2 * 63 * 127 and |32 * inputs| <= 16256: sum first, as 32 bits.
        dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs, scale16));
        dot[i] = _mm256_sub_epi32(dot[i], _mm256_slli_epi32(_mm256_madd_epi16(inputs, scale16), 5));
      }
    }
  }
  AddScaled<kRows>(dot, LoadHalves(w.d), x, acc);
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
template <typename Block, int kRows>
inline void AddBlocks(const Block* panel, const BlockInput& x, uint32_t begin, uint32_t end,
                      __m256 (&acc)[kRows]) {
  for (int i = 0; i < kRows; ++i) acc[i] = _mm256_setzero_ps();
  for (uint32_t b = begin; b < end; ++b) {
    PrefetchAhead(panel[b]);
    AddBlock<kRows>(panel[b],
                    {x.q + b * kBlockColumns, x.scale + b, x.sum + b, x.total + b, x.stride}, acc);
  }
}

template <typename Block, int kRows>
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
    AddBlocks<Block, kRows>(blocks, x, 0, counts.blocks, acc);
    for (int i = 0; i < kRows; ++i)
      StoreOutputs(tile, panel, row + static_cast<uint32_t>(i), acc[i]);
    return;
  }
  PartialSums<kRows> sums;
  for (uint32_t begin = 0; begin < counts.blocks; begin += counts.segment) {
    AddBlocks<Block, kRows>(blocks, x, begin, begin + counts.segment, acc);
    sums.Add(acc);
  }
  sums.Finish();
  for (int i = 0; i < kRows; ++i)
    StoreOutputs(tile, panel, row + static_cast<uint32_t>(i), sums.stack[0][i]);
}

// `rows` <= kRows rows.
template <typename Block, int kRows>
void MultiplyRows(const MatMulTile& tile, const BlockCounts& counts, uint32_t panel, uint32_t row,
                  uint32_t rows) {
  if constexpr (kRows > 0) {
    if (rows == kRows)
      MultiplyPanel<Block, kRows>(tile, counts, panel, row);
    else
      MultiplyRows<Block, kRows - 1>(tile, counts, panel, row, rows);
  }
}

template <typename Block, int kRows>
void MultiplyTile(const MatMulTile& tile) {
  const BlockCounts counts = {tile.quantized.blocks, tile.quantized.blocks / tile.weight.segments};
  const uint32_t rows = tile.row_end - tile.row_begin;
  // Groups of nearly equal size: unpacking a weight for few rows costs as much as for many.
  const uint32_t groups = (rows + kRows - 1) / kRows;
  for (uint32_t panel = tile.panel_begin; panel < tile.panel_end; ++panel) {
    uint32_t row = tile.row_begin;
    for (uint32_t left = groups; left > 0; --left) {
      const uint32_t count = (tile.row_end - row + left - 1) / left;
      MultiplyRows<Block, kRows>(tile, counts, panel, row, count);
      row += count;
    }
  }
}

}  // namespace

void MatMulInt8(const MatMulTile& tile) {
  switch (tile.weight.dtype) {
    case DType::kQ4_0:
      return MultiplyTile<PanelBlockQ4_0, kNibbleRows>(tile);
    case DType::kQ4_1:
      return MultiplyTile<PanelBlockQ4_1, kNibbleRows>(tile);
    case DType::kQ8_0:
      return MultiplyTile<PanelBlockQ8_0, kByteRows>(tile);
    case DType::kQ6_K:
      return MultiplyTile<PanelBlockQ6K, kByteRows>(tile);
    default:
      return;  // not a block format; ruled out by the contract
  }
}

}  // namespace muselet::cpu::avx2

#endif
