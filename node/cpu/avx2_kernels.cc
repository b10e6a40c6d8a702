#include "node/cpu/kernels.h"

namespace muselet::cpu {

const Kernels* Avx2Kernels() {
  return nullptr;
}

}  // namespace muselet::cpu
