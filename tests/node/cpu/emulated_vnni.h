// The int8 products of the AVX-512 level on processors that lack it: its own code, with the one
// instruction that AVX2 has not (vpdpbusd) put together from others.
#pragma once

#include "node/cpu/kernels.h"

namespace muselet::testing {

// REQUIRES: a processor with AVX2, FMA and F16C.
void EmulatedVnniMatMulInt8(const cpu::MatMulTile& tile);

}  // namespace muselet::testing
