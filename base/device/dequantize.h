// Rows of any element format to float32, one value at a time by the written formula: the oracle
// for the backends' fast kernels, and good enough for embedding rows.
//
// Formulas: base/device/dtype.h, from the block structs of ggml (docs/gguf.md names them).
// Every product and sum is rounded to float32 once, as ggml's reference does.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/device/dtype.h"
#include "base/status.h"

namespace muselet {

// IEEE 754 half to float, exact; subnormals, infinities and NaN included.
float HalfToFloat(uint16_t half);
// bfloat16 to float, exact.
float BFloat16ToFloat(uint16_t bits);

// Scale and minimum of one of the 8 groups of 32 values of a Q4_K or Q5_K block: 6 bits each, of
// the later groups' the two high ones stand in the high bits of the bytes of the earlier ones.
struct GroupScale {
  uint32_t scale = 0;
  uint32_t minimum = 0;
};
GroupScale ReadGroupScale(const std::byte* block, uint32_t group);

// Writes `count` values to `out`. `blocks` holds count / block_values blocks, of any alignment.
// kInvalidArgument if count is not whole blocks; nothing is written then.
Status DequantizeRow(DType dtype, const std::byte* blocks, uint64_t count, float* out);

}  // namespace muselet
