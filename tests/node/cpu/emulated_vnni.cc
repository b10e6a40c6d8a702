#include "tests/node/cpu/emulated_vnni.h"

#if defined(__AVX2__)

#include <immintrin.h>

namespace {

// vpdpbusd as the instruction set reference states it: in each of 8 lanes, sum + the four products
// of an unsigned byte of `u` and a signed byte of `s`, without saturation.
__m256i EmulatedDpbusd(__m256i sum, __m256i u, __m256i s) {
  const __m256i low_byte = _mm256_set1_epi32(0xFF);
  for (int byte = 0; byte < 4; ++byte) {
    const __m256i a = _mm256_and_si256(_mm256_srli_epi32(u, 8 * byte), low_byte);
    const __m256i b = _mm256_srai_epi32(_mm256_slli_epi32(s, 24 - 8 * byte), 24);
    sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(a, b));
  }
  return sum;
}

}  // namespace

#undef _mm256_dpbusd_epi32
#define _mm256_dpbusd_epi32 EmulatedDpbusd
#include "node/cpu/vnni_dot.h"

namespace muselet::testing {

void EmulatedVnniMatMulInt8(const cpu::MatMulTile& tile) {
  cpu::MultiplyInt8<cpu::QuadDot>(tile);
}

}  // namespace muselet::testing

#else

namespace muselet::testing {

void EmulatedVnniMatMulInt8(const cpu::MatMulTile&) {}

}  // namespace muselet::testing

#endif
