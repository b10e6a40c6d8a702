// Row-wise kernels: normalisation, rounding to int8, SiLU, writing the cache.
#if defined(__AVX2__)

#include "node/cpu/avx2.h"

namespace muselet::cpu::avx2 {

void RmsNormRow(const float* x, const float* weight, float eps, uint32_t width, float* out) {
  const uint32_t whole = width / 8 * 8;
  __m256 lanes = _mm256_setzero_ps();
  for (uint32_t i = 0; i < whole; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    lanes = _mm256_fmadd_ps(v, v, lanes);
  }
  const __m256 tail = LoadTail(x + whole, width - whole);
  lanes = _mm256_fmadd_ps(tail, tail, lanes);
  const float mean = AddLanes(lanes) / static_cast<float>(width);
  const float scale = 1.0F / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps)));
  for (uint32_t i = 0; i < whole; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale));
    _mm256_storeu_ps(out + i, _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + i)));
  }
  for (uint32_t i = whole; i < width; ++i) out[i] = (x[i] * scale) * weight[i];
}

void QuantizeRow(const float* x, uint32_t row, const QuantizedRows& out) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // undoes the packs' lane halves
  for (uint32_t b = 0; b < out.blocks; ++b, x += kBlockColumns) {
    const size_t at = static_cast<size_t>(row) * out.blocks + b;
    __m256 v[4];
    __m256 largest8 = _mm256_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_loadu_ps(x + 8 * i);
      largest8 = _mm256_max_ps(largest8, _mm256_and_ps(v[i], magnitude));
    }
    __m128 largest4 =
        _mm_max_ps(_mm256_castps256_ps128(largest8), _mm256_extractf128_ps(largest8, 1));
    largest4 = _mm_max_ps(largest4, _mm_movehl_ps(largest4, largest4));
    const float largest = _mm_cvtss_f32(_mm_max_ss(largest4, _mm_movehdup_ps(largest4)));
    const __m256 inverse = _mm256_set1_ps(largest > kQuantizeMin ? 127.0F / largest : 0.0F);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    const __m256i sum8 =
        _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
    __m128i sum4 = _mm_add_epi32(_mm256_castsi256_si128(sum8), _mm256_extracti128_si256(sum8, 1));
    sum4 = _mm_add_epi32(sum4, _mm_shuffle_epi32(sum4, 0x4E));
    const int32_t total = _mm_cvtsi128_si32(_mm_add_epi32(sum4, _mm_shuffle_epi32(sum4, 0xB1)));
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.q + at * kBlockColumns),
                        _mm256_permutevar8x32_epi32(bytes, order));
    out.scale[at] = largest / 127.0F;
    out.total[at] = total;
    out.sum[at] = out.scale[at] * static_cast<float>(total);
  }
}

static inline __m256 SiluMul8(__m256 gate, __m256 up) {
  const __m256 negative = _mm256_xor_ps(gate, _mm256_set1_ps(-0.0F));
  const __m256 denominator = _mm256_add_ps(_mm256_set1_ps(1.0F), Exp(negative));
  return _mm256_mul_ps(_mm256_div_ps(gate, denominator), up);
}

void SiluMul(const float* gate, const float* up, size_t count, float* out) {
  const size_t whole = count / 8 * 8;
  for (size_t i = 0; i < whole; i += 8)
    _mm256_storeu_ps(out + i, SiluMul8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
  const auto left = static_cast<uint32_t>(count - whole);
  if (left == 0) return;
  StoreTail(out + whole, left, SiluMul8(LoadTail(gate + whole, left), LoadTail(up + whole, left)));
}

static inline __m256 GeluMul8(__m256 gate, __m256 up) {
  const __m256 one = _mm256_set1_ps(1.0F);
  const __m256 cubic = _mm256_fmadd_ps(_mm256_mul_ps(gate, gate), _mm256_set1_ps(kGeluCubic), one);
  const __m256 u = _mm256_mul_ps(gate, cubic);
  const __m256 denominator =
      _mm256_add_ps(one, Exp(_mm256_mul_ps(u, _mm256_set1_ps(-kGeluFactor))));
  return _mm256_mul_ps(_mm256_div_ps(gate, denominator), up);
}

void GeluMul(const float* gate, const float* up, size_t count, float* out) {
  const size_t whole = count / 8 * 8;
  for (size_t i = 0; i < whole; i += 8)
    _mm256_storeu_ps(out + i, GeluMul8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
  const auto left = static_cast<uint32_t>(count - whole);
  if (left == 0) return;
  StoreTail(out + whole, left, GeluMul8(LoadTail(gate + whole, left), LoadTail(up + whole, left)));
}

static inline __m256 SigmoidMul8(__m256 gate, __m256 x) {
  const __m256 negative = _mm256_xor_ps(gate, _mm256_set1_ps(-0.0F));
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0F), Exp(negative)));
}

void SigmoidMul(const float* gate, const float* x, size_t count, float* out) {
  const size_t whole = count / 8 * 8;
  for (size_t i = 0; i < whole; i += 8)
    _mm256_storeu_ps(out + i, SigmoidMul8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(x + i)));
  const auto left = static_cast<uint32_t>(count - whole);
  if (left == 0) return;
  StoreTail(out + whole, left,
            SigmoidMul8(LoadTail(gate + whole, left), LoadTail(x + whole, left)));
}

static inline __m256 SoftCap8(__m256 x, float cap) {
  const __m256 exp = Exp(_mm256_mul_ps(x, _mm256_set1_ps(2.0F / cap)));
  const __m256 below =
      _mm256_div_ps(_mm256_set1_ps(2.0F * cap), _mm256_add_ps(exp, _mm256_set1_ps(1.0F)));
  return _mm256_sub_ps(_mm256_set1_ps(cap), below);
}

void SoftCap(const float* x, float cap, size_t count, float* out) {
  const size_t whole = count / 8 * 8;
  for (size_t i = 0; i < whole; i += 8)
    _mm256_storeu_ps(out + i, SoftCap8(_mm256_loadu_ps(x + i), cap));
  const auto left = static_cast<uint32_t>(count - whole);
  if (left > 0) StoreTail(out + whole, left, SoftCap8(LoadTail(x + whole, left), cap));
}

void KvWrite(const KvWriteHead& head) {
  if (!head.half || head.head_dim % 8 != 0) return ScalarKernels().kv_write(head);
  auto* keys = reinterpret_cast<uint16_t*>(head.keys) + head.slot;
  auto* values =
      reinterpret_cast<uint16_t*>(head.values) + static_cast<size_t>(head.slot) * head.head_dim;
  for (uint32_t d = 0; d < head.head_dim; d += 8) {
    constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    alignas(16) uint16_t k[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(k),
                    _mm256_cvtps_ph(_mm256_loadu_ps(head.k + d), kNearestEven));
    for (uint32_t i = 0; i < 8; ++i) keys[static_cast<size_t>(d + i) * kKvBlockTokens] = k[i];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + d),
                     _mm256_cvtps_ph(_mm256_loadu_ps(head.v + d), kNearestEven));
  }
}

}  // namespace muselet::cpu::avx2

#endif
