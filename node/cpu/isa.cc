#include "node/cpu/isa.h"

namespace muselet::cpu {
namespace {

bool HasAvx2() {
#if defined(__x86_64__)
  return Avx2Kernels() != nullptr && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

bool HasAvx512() {
#if defined(__x86_64__)
  return Avx512Kernels() != nullptr && HasAvx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

// The best level that runs here.
IsaLevel BestLevel() {
  if (HasAvx512()) return IsaLevel::kAvx512;
  return HasAvx2() ? IsaLevel::kAvx2 : IsaLevel::kScalar;
}

}  // namespace

Result<const Kernels*> SelectKernels(IsaLevel level) {
  const bool lacking = (level == IsaLevel::kAvx2 && Avx2Kernels() == nullptr) ||
                       (level == IsaLevel::kAvx512 && Avx512Kernels() == nullptr);
  if (lacking) {
    return Unavailable("cpu.isa: the kernels of " + std::string(IsaName(level)) +
                       " are not in this build; choose auto or scalar");
  }
  if (level == IsaLevel::kAuto) level = BestLevel();
  if (level == IsaLevel::kScalar) return &ScalarKernels();
  if (level == IsaLevel::kAvx2) {
    if (HasAvx2()) return Avx2Kernels();
    return Unavailable(
        "cpu.isa: avx2 needs a processor with AVX2, FMA and F16C; choose auto or scalar");
  }
  if (HasAvx512()) return Avx512Kernels();
  return Unavailable(
      "cpu.isa: avx512 needs a processor with AVX-512 F, BW, VL and VNNI; choose auto");
}

std::vector<std::string> IsaLevelNames() {
  return {"auto", "scalar", "avx2", "avx512"};
}

std::string_view IsaName(IsaLevel level) {
  if (level == IsaLevel::kAuto) level = BestLevel();
  return level == IsaLevel::kAvx2 ? "avx2" : level == IsaLevel::kAvx512 ? "avx512" : "scalar";
}

}  // namespace muselet::cpu
