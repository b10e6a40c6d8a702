// The AVX-512 level: VNNI for the int8 products, the AVX2 kernels for the rest, which its
// processors run at the same width.
#include "node/cpu/kernels.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)

#include "node/cpu/vnni_dot.h"

namespace muselet::cpu {
namespace {

constexpr Kernels kAvx512 = {avx2::MatMulFloat, MultiplyInt8<QuadDot>, avx2::QuantizeRow,
                             avx2::RmsNormRow,  avx2::SiluMul,         avx2::AttendChunk,
                             avx2::MergeChunk,  avx2::KvWrite,         avx2::GeluMul,
                             avx2::SigmoidMul,  avx2::SoftCap};

}  // namespace

const Kernels* Avx512Kernels() {
  return &kAvx512;
}

}  // namespace muselet::cpu

#else

namespace muselet::cpu {

const Kernels* Avx512Kernels() {
  return nullptr;
}

}  // namespace muselet::cpu

#endif
