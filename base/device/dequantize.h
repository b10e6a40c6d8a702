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

// Writes `count` values to `out`. `blocks` holds count / block_values blocks, of any alignment.
// kInvalidArgument if count is not whole blocks; nothing is written then.
Status DequantizeRow(DType dtype, const std::byte* blocks, uint64_t count, float* out);

}  // namespace muselet
