// What the AVX2 files share: the 8 lanes of the reduction layout (kernels.h) as one vector.
//
// Include it only from files that are compiled with -mavx2 -mfma -mf16c. Everything with a body is
// static: a function with external linkage, compiled for AVX2, could be picked for the whole
// program and end it on a processor without AVX2. For the same reason these files use no standard
// library templates. Every function gives the bits of its plain counterpart in scalar_kernels.cc.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "node/cpu/kernels.h"

namespace muselet::cpu::avx2 {

// The kernels, one file a group; contracts in kernels.h. Shapes that a kernel has no vector form
// for (heads that are not a multiple of 8) go to the plain one.
void MatMulFloat(const MatMulTile& tile);
void MatMulInt8(const MatMulTile& tile);
void QuantizeRow(const float* x, uint32_t row, const QuantizedRows& out);
void RmsNormRow(const float* x, const float* weight, float eps, uint32_t width, float* out);
void SiluMul(const float* gate, const float* up, size_t count, float* out);
void GeluMul(const float* gate, const float* up, size_t count, float* out);
void SigmoidMul(const float* gate, const float* x, size_t count, float* out);
void SoftCap(const float* x, float cap, size_t count, float* out);
void AttendChunk(const AttentionChunk& chunk);
void MergeChunk(const AttentionMerge& merge);
void KvWrite(const KvWriteHead& head);

// e^x in every lane of kCount vectors, for x clamped to [-87, 88]: step by step for all of them,
// so that one's latency is filled with the others' work.
template <int kCount>
__attribute__((always_inline)) static inline void ExpEach(__m256 (&x)[kCount]) {
  const __m256 round = _mm256_set1_ps(12582912.0F);
  __m256 n[kCount], p[kCount];
#pragma GCC unroll 4
  for (int j = 0; j < kCount; ++j) {
    x[j] = _mm256_min_ps(_mm256_max_ps(x[j], _mm256_set1_ps(-87.0F)), _mm256_set1_ps(88.0F));
    n[j] = _mm256_sub_ps(_mm256_fmadd_ps(x[j], _mm256_set1_ps(0x1.715476p+0F), round), round);
    x[j] = _mm256_fmadd_ps(n[j], _mm256_set1_ps(-0x1.62e4p-1F), x[j]);
    x[j] = _mm256_fmadd_ps(n[j], _mm256_set1_ps(-0x1.7f7d1cp-20F), x[j]);
    p[j] = _mm256_set1_ps(1.0F / 5040.0F);
  }
  constexpr float kTaylor[] = {1.0F / 720.0F, 1.0F / 120.0F, 1.0F / 24.0F, 1.0F / 6.0F,
                               0.5F,          1.0F,          1.0F};
#pragma GCC unroll 7
  for (const float c : kTaylor) {
#pragma GCC unroll 4
    for (int j = 0; j < kCount; ++j) p[j] = _mm256_fmadd_ps(p[j], x[j], _mm256_set1_ps(c));
  }
#pragma GCC unroll 4
  for (int j = 0; j < kCount; ++j) {
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n[j]), _mm256_set1_epi32(127)), 23);
    x[j] = _mm256_mul_ps(p[j], _mm256_castsi256_ps(exponent));
  }
}

// e^x in every lane, for x clamped to [-87, 88].
static inline __m256 Exp(__m256 x) {
  __m256 one[1] = {x};
  ExpEach(one);
  return one[0];
}

// ((a0 + a4) + (a2 + a6)) + ((a1 + a5) + (a3 + a7)).
static inline float AddLanes(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Eight IEEE halves, of any alignment.
static inline __m256 LoadHalves(const void* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}

// Eight halves times eight integers of 6 bits.
static inline __m256 Scaled(const uint16_t* halves, const uint8_t* factors) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(factors));
  return _mm256_mul_ps(LoadHalves(halves), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
}

// The first `count` < 8 floats, the other lanes zero.
static inline __m256 LoadTail(const float* from, uint32_t count) {
  alignas(32) float lanes[8] = {};
  for (uint32_t i = 0; i < count; ++i) lanes[i] = from[i];
  return _mm256_load_ps(lanes);
}

// Stores the first `count` < 8 lanes.
static inline void StoreTail(float* to, uint32_t count, __m256 value) {
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, value);
  for (uint32_t i = 0; i < count; ++i) to[i] = lanes[i];
}

// The pairwise tree over partial sums that arrive in order, for kRows rows of activations.
template <int kRows>
struct PartialSums {
  __m256 stack[7][kRows];
  uint32_t depth = 0;
  uint32_t count = 0;

  __attribute__((always_inline)) inline void Add(const __m256 (&partial)[kRows]) {
    for (int i = 0; i < kRows; ++i) stack[depth][i] = partial[i];
    for (uint32_t bit = count++; (bit & 1U) != 0; bit >>= 1) Fold();
    ++depth;
  }
  // Adds the two topmost entries.
  __attribute__((always_inline)) inline void Fold() {
    for (int i = 0; i < kRows; ++i)
      stack[depth - 1][i] = _mm256_add_ps(stack[depth - 1][i], stack[depth][i]);
    --depth;
  }
  // Leaves the total in stack[0].
  __attribute__((always_inline)) inline void Finish() {
    --depth;
    while (depth > 0) Fold();
  }
};

// Stores the 8 outputs of a panel for one row of activations, those past N left out.
__attribute__((always_inline)) static inline void StoreOutputs(const MatMulTile& tile,
                                                               uint32_t panel, uint32_t row,
                                                               __m256 value) {
  const uint32_t n = panel * kPanelRows;
  float* out = tile.out + static_cast<size_t>(row) * tile.weight.rows + n;
  const uint32_t count = tile.weight.rows - n;
  if (count >= kPanelRows) {
    if (tile.bias != nullptr) value = _mm256_add_ps(value, _mm256_loadu_ps(tile.bias + n));
    if (tile.accumulate) value = _mm256_add_ps(_mm256_loadu_ps(out), value);
    _mm256_storeu_ps(out, value);
    return;
  }
  if (tile.bias != nullptr) value = _mm256_add_ps(value, LoadTail(tile.bias + n, count));
  if (tile.accumulate) value = _mm256_add_ps(LoadTail(out, count), value);
  StoreTail(out, count, value);
}

}  // namespace muselet::cpu::avx2
