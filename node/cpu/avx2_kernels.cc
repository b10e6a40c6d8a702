#include "node/cpu/kernels.h"

#if defined(__AVX2__)

#include "node/cpu/avx2.h"

namespace muselet::cpu {
namespace {

constexpr Kernels kAvx2 = {avx2::MatMulFloat, avx2::MatMulInt8, avx2::QuantizeRow,
                           avx2::RmsNormRow,  avx2::SiluMul,    avx2::AttendChunk,
                           avx2::MergeChunk,  avx2::KvWrite,    avx2::GeluMul,
                           avx2::SigmoidMul,  avx2::SoftCap};

}  // namespace

const Kernels* Avx2Kernels() {
  return &kAvx2;
}

}  // namespace muselet::cpu

#else

namespace muselet::cpu {

const Kernels* Avx2Kernels() {
  return nullptr;
}

}  // namespace muselet::cpu

#endif
