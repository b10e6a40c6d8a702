#include "cuda/tree_sum.h"

namespace muselet::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr size_t kBlocksMax = 4096;

__global__ void TreeSumKernel(const float* parts, uint32_t members, size_t count, float* out) {
  const size_t step = size_t{gridDim.x} * blockDim.x;
  for (size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    out[i] = TreeSum(parts + i, members, count);
  }
}

}  // namespace

cudaError_t EnqueueTreeSum(const float* parts, uint32_t members, size_t count, float* out,
                           cudaStream_t stream) {
  const size_t wanted = (count + kThreads - 1) / kThreads;
  const auto blocks = static_cast<uint32_t>(wanted < kBlocksMax ? wanted : kBlocksMax);
  if (blocks == 0) return cudaSuccess;
  TreeSumKernel<<<blocks, kThreads, 0, stream>>>(parts, members, count, out);
  return cudaGetLastError();
}

}  // namespace muselet::cuda
