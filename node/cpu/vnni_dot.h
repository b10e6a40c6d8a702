// Integer sums of 32 columns by the four-way byte products of VNNI, which add to 32 bits.
//
// Like avx2.h: only for files that are compiled for one instruction set; everything is static.
#pragma once

#include "node/cpu/int8_panels.h"

namespace muselet::cpu {
namespace {

// The Dot of int8_panels.h. Sums are exact in 32 bits, so they are those of any other Dot.
struct QuadDot {
  template <int kRows>
  static inline void Nibbles(const uint8_t* q, const BlockInput& x, __m256i (&dot)[kRows]) {
    for (int i = 0; i < kRows; ++i) dot[i] = _mm256_setzero_si256();
    for (int quarter = 0; quarter < 4; ++quarter) {
      const ByteVectors w = LoadNibbles(q, quarter);
      for (int i = 0; i < kRows; ++i) {
        const int8_t* at = x.row(i) + 8 * quarter;
        dot[i] = _mm256_dpbusd_epi32(dot[i], w.first, Broadcast4(at));
        dot[i] = _mm256_dpbusd_epi32(dot[i], w.second, Broadcast4(at + 4));
      }
    }
  }

  // Already unsigned: the low nibbles with their fifth bit, which LoadFiveBits puts together.
  // Nothing is taken off here: the formats do that with their offset or minimum.
  template <int kRows>
  static inline void FiveBits(const uint8_t* q, const uint8_t* high_bits, const BlockInput& x,
                              __m256i (&dot)[kRows]) {
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high_bits));
    for (int i = 0; i < kRows; ++i) dot[i] = _mm256_setzero_si256();
    for (int quarter = 0; quarter < 4; ++quarter) {
      const ByteVectors w = LoadFiveBits(q, high, quarter);
      for (int i = 0; i < kRows; ++i) {
        const int8_t* at = x.row(i) + 8 * quarter;
        dot[i] = _mm256_dpbusd_epi32(dot[i], w.first, Broadcast4(at));
        dot[i] = _mm256_dpbusd_epi32(dot[i], w.second, Broadcast4(at + 4));
      }
    }
  }

  // As w + 128, which is unsigned; 128 times the sum of x is taken off.
  template <int kRows>
  static inline void SignedBytes(const int8_t* q, const BlockInput& x, __m256i (&dot)[kRows]) {
    const __m256i offset = _mm256_set1_epi8(-128);
    for (int i = 0; i < kRows; ++i) dot[i] = _mm256_set1_epi32(-128 * x.total[i * x.stride]);
    for (int vector = 0; vector < 8; ++vector) {
      const __m256i w = _mm256_xor_si256(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + 32 * vector)), offset);
      for (int i = 0; i < kRows; ++i)
        dot[i] = _mm256_dpbusd_epi32(dot[i], w, Broadcast4(x.row(i) + 4 * vector));
    }
  }

  // As w + 32, which is unsigned; 32 times the sum of a part's x is taken off.
  template <int kRows>
  static inline void SixBits(const PanelBlockQ6K& w, const BlockInput& x, __m256i (&dot)[kRows]) {
    const __m256i minus = _mm256_set1_epi32(-32), one = _mm256_set1_epi8(1);
    for (int i = 0; i < kRows; ++i) dot[i] = _mm256_setzero_si256();
    for (int part = 0; part < 2; ++part) {
      const __m256i scale =
          _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w.scale[part])));
      const ByteVectors v[2] = {LoadSixBits(w, part, 0), LoadSixBits(w, part, 1)};
      for (int i = 0; i < kRows; ++i) {
        __m256i sum = _mm256_setzero_si256(), inputs = _mm256_setzero_si256();
        for (int half = 0; half < 2; ++half) {
          const int8_t* at = x.row(i) + 16 * part + 8 * half;
          const __m256i a = Broadcast4(at), b = Broadcast4(at + 4);
          sum = _mm256_dpbusd_epi32(sum, v[half].first, a);
          sum = _mm256_dpbusd_epi32(sum, v[half].second, b);
          inputs = _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(inputs, one, a), one, b);
        }
        sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(inputs, minus));
        dot[i] = _mm256_add_epi32(dot[i], _mm256_mullo_epi32(sum, scale));
      }
    }
  }
};

}  // namespace
}  // namespace muselet::cpu
