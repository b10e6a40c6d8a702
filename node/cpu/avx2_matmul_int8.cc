// Integer sums of 32 columns by the byte products of AVX2, which add in pairs to 16 bits.
#if defined(__AVX2__)

#include "node/cpu/int8_panels.h"

namespace muselet::cpu::avx2 {
namespace {

struct PairDot {
  // Pairs stay within 16 bits for weights <= 15: 8 pairs of 15 * 127.
  template <int kRows>
  static inline void Nibbles(const uint8_t* q, const BlockInput& x, __m256i (&dot)[kRows]) {
    __m256i sum[kRows];
    for (int quarter = 0; quarter < 4; ++quarter) {
      const ByteVectors w = LoadNibbles(q, quarter);
      for (int i = 0; i < kRows; ++i) {
        const int8_t* at = x.row(i) + 8 * quarter;
        const __m256i pairs = _mm256_maddubs_epi16(w.first, Broadcast4(at));
        sum[i] = quarter == 0 ? pairs : _mm256_add_epi16(sum[i], pairs);
        KeepInRegister(sum[i]);
        sum[i] = _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(w.second, Broadcast4(at + 4)));
        KeepInRegister(sum[i]);
      }
    }
    const __m256i one = _mm256_set1_epi16(1);
    for (int i = 0; i < kRows; ++i) dot[i] = _mm256_madd_epi16(sum[i], one);
  }

  // Four pairs of 31 * 127 fit into 16 bits, eight do not.
  template <int kRows>
  static inline void FiveBits(const uint8_t* q, const uint8_t* high_bits, const BlockInput& x,
                              __m256i (&dot)[kRows]) {
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high_bits));
    const __m256i one = _mm256_set1_epi16(1);
    for (int i = 0; i < kRows; ++i) dot[i] = _mm256_setzero_si256();
    for (int half = 0; half < 2; ++half) {
      const ByteVectors a = LoadFiveBits(q, high, 2 * half);
      const ByteVectors b = LoadFiveBits(q, high, 2 * half + 1);
      for (int i = 0; i < kRows; ++i) {
        const int8_t* at = x.row(i) + 16 * half;
        __m256i sum = _mm256_maddubs_epi16(a.first, Broadcast4(at));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(a.second, Broadcast4(at + 4)));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(b.first, Broadcast4(at + 8)));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(b.second, Broadcast4(at + 12)));
        dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(sum, one));
        KeepInRegister(dot[i]);
      }
    }
  }

  // |w| times x with the sign of w; a pair is at most 2 * 128 * 127 and fits.
  template <int kRows>
  static inline void SignedBytes(const int8_t* q, const BlockInput& x, __m256i (&dot)[kRows]) {
    const __m256i one = _mm256_set1_epi16(1);
    for (int i = 0; i < kRows; ++i) dot[i] = _mm256_setzero_si256();
    for (int vector = 0; vector < 8; ++vector) {
      const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + 32 * vector));
      const __m256i magnitude = _mm256_abs_epi8(w);
      for (int i = 0; i < kRows; ++i) {
        const __m256i input = Broadcast4(x.row(i) + 4 * vector);
        const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(input, w));
        dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs, one));
        KeepInRegister(dot[i]);
      }
    }
  }

  // Two vectors a 16-bit sum; 32 is taken off as 32 times the sum of x.
  template <int kRows>
  static inline void SixBits(const PanelBlockQ6K& w, const BlockInput& x, __m256i (&dot)[kRows]) {
    const __m256i one = _mm256_set1_epi8(1);
    for (int i = 0; i < kRows; ++i) dot[i] = _mm256_setzero_si256();
    for (int part = 0; part < 2; ++part) {
      const __m256i scale =
          _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w.scale[part])));
      // The scale in both 16-bit halves of a lane.
      const __m256i scale16 = _mm256_or_si256(_mm256_and_si256(scale, _mm256_set1_epi32(0xFFFF)),
                                              _mm256_slli_epi32(scale, 16));
      for (int half = 0; half < 2; ++half) {
        const ByteVectors v = LoadSixBits(w, part, half);
        for (int i = 0; i < kRows; ++i) {
          const int8_t* at = x.row(i) + 16 * part + 8 * half;
          const __m256i a = Broadcast4(at), b = Broadcast4(at + 4);
          const __m256i pairs =
              _mm256_add_epi16(_mm256_maddubs_epi16(v.first, a), _mm256_maddubs_epi16(v.second, b));
          const __m256i inputs =
              _mm256_add_epi16(_mm256_maddubs_epi16(one, a), _mm256_maddubs_epi16(one, b));
          // |pairs| <= 2 * 2 * 63 * 127 and |32 * inputs| <= 16256: sum first, as 32 bits.
          dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(pairs, scale16));
          dot[i] =
              _mm256_sub_epi32(dot[i], _mm256_slli_epi32(_mm256_madd_epi16(inputs, scale16), 5));
        }
      }
    }
  }
};

}  // namespace

void MatMulInt8(const MatMulTile& tile) {
  MultiplyInt8<PairDot>(tile);
}

}  // namespace muselet::cpu::avx2

#endif
