#include "comms/rank_tree.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace muselet {
namespace {

// Columns summed at a time, so that all levels of the tree stay in the first cache.
constexpr size_t kBlock = 64;

// An output may be one of the inputs, at the same index only: nothing is carried between turns.
void Add(const float* left, const float* right, size_t count, float* out) {
#pragma GCC ivdep
  for (size_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
}

void SumBlock(std::span<const float* const> parts, size_t begin, size_t count, float* out) {
  std::array<float, kRankMembersMax / 2 * kBlock> sums;
  std::array<const float*, kRankMembersMax> level;
  for (size_t i = 0; i < parts.size(); ++i) level[i] = parts[i] + begin;
  size_t width = parts.size();
  while (width > 2) {
    for (size_t i = 0; i + 1 < width; i += 2) {
      float* sum = sums.data() + i / 2 * kBlock;
      Add(level[i], level[i + 1], count, sum);
      level[i / 2] = sum;
    }
    if (width % 2 == 1) level[width / 2] = level[width - 1];
    width = (width + 1) / 2;
  }
  Add(level[0], level[1], count, out + begin);
}

}  // namespace

void RankTreeSum(std::span<const float* const> parts, size_t count, float* out) {
  CHECK(!parts.empty() && parts.size() <= kRankMembersMax, parts.size());
  if (parts.size() == 1) {
    if (parts[0] != out && count > 0) std::memmove(out, parts[0], count * sizeof(float));
  } else if (parts.size() == 2) {
    Add(parts[0], parts[1], count, out);
  } else {
    for (size_t begin = 0; begin < count; begin += kBlock) {
      SumBlock(parts, begin, std::min(kBlock, count - begin), out);
    }
  }
}

}  // namespace muselet
