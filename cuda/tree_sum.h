// Sums of the members' parts on the device, in the order of comms/rank_tree: the pairwise tree over
// the members' numbers, ((p0 + p1) + (p2 + p3)) + ..., an odd last one joining at the next level.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace muselet::cuda {

constexpr uint32_t kTreePartsMax = 64;

// The tree over parts[0], parts[stride], ... parts[(count - 1) * stride]. Walks them in order and
// keeps one sum for each complete subtree, as a binary counter keeps its bits: plain additions
// only, so that the bits are the processor's. REQUIRES: 1 <= count <= kTreePartsMax.
__host__ __device__ inline float TreeSum(const float* parts, uint32_t count, size_t stride) {
  float sums[8];  // of subtrees, the largest first
  uint32_t depth = 0;
  for (uint32_t part = 0; part < count; ++part) {
    float sum = parts[part * stride];
    for (uint32_t bits = part; (bits & 1U) != 0; bits >>= 1) sum = sums[--depth] + sum;
    sums[depth++] = sum;
  }
  float whole = sums[--depth];
  while (depth > 0) whole = sums[--depth] + whole;
  return whole;
}

// out[i] = the tree over parts[member * count + i], on `stream`. Device memory.
cudaError_t EnqueueTreeSum(const float* parts, uint32_t members, size_t count, float* out,
                           cudaStream_t stream);

}  // namespace muselet::cuda
