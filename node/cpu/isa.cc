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

}  // namespace

Result<const Kernels*> SelectKernels(IsaLevel level) {
  switch (level) {
    case IsaLevel::kScalar:
      return &ScalarKernels();
    case IsaLevel::kAuto:
      return HasAvx2() ? Avx2Kernels() : &ScalarKernels();
    case IsaLevel::kAvx2:
      if (HasAvx2()) return Avx2Kernels();
      return Unavailable(
          "cpu.isa: avx2 needs a processor with AVX2, FMA and F16C; choose auto or scalar");
    case IsaLevel::kAvx512:
      break;
  }
  return Unavailable("cpu.isa: avx512 is not in this build; choose auto, avx2 or scalar");
}

std::vector<std::string> IsaLevelNames() {
  std::vector<std::string> names = {"auto", "scalar"};
  if (Avx2Kernels() != nullptr) names.emplace_back("avx2");
  return names;
}

std::string_view IsaName(IsaLevel level) {
  if (level == IsaLevel::kAuto) return HasAvx2() ? "avx2" : "scalar";
  return level == IsaLevel::kAvx2 ? "avx2" : level == IsaLevel::kAvx512 ? "avx512" : "scalar";
}

}  // namespace muselet::cpu
