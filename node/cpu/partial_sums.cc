#include "node/cpu/partial_sums.h"

#include <algorithm>

#include "base/check.h"

namespace muselet::cpu {
namespace {

constexpr uint32_t kStrip = 64;  // elements: the stack of them stays in the L1 cache

// into = a + b.
void AddStrip(const float* a, const float* b, uint32_t count, float* into) {
  for (uint32_t i = 0; i < count; ++i) into[i] = a[i] + b[i];
}

}  // namespace

void AddPartialsRow(std::span<const PartialSum> parts, const float* bias, uint32_t row, Rows out) {
  float sums[kPartialSumsDepth][kStrip];
  for (uint32_t begin = 0; begin < out.width; begin += kStrip) {
    const uint32_t count = std::min(kStrip, out.width - begin);
    const size_t at = static_cast<size_t>(row) * out.width + begin;
    const float* stack[kPartialSumsDepth];
    uint32_t depth = 0;
    for (const PartialSum& part : parts) {
      CHECK(depth < kPartialSumsDepth && part.additions <= depth, "not a tree of partial sums");
      stack[depth++] = part.rows + at;
      for (uint32_t i = 0; i < part.additions; ++i) {
        --depth;
        AddStrip(stack[depth - 1], stack[depth], count, sums[depth - 1]);
        stack[depth - 1] = sums[depth - 1];
      }
    }
    CHECK(depth == 1, "partial sums are left over");
    if (bias != nullptr) {
      AddStrip(stack[0], bias + begin, count, sums[0]);
      stack[0] = sums[0];
    }
    AddStrip(out.data + at, stack[0], count, out.data + at);
  }
}

}  // namespace muselet::cpu
