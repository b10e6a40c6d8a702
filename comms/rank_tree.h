// The order in which the parts of a sum are added, whoever adds them: the pairwise tree of
// base/device/ops.h over the parts' numbers, ((p0 + p1) + (p2 + p3)) + ..., an odd last one joining
// at the next level. Every maker of RankGroup sums with this one function, so that the bits of a
// sum do not depend on how the parts travelled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace muselet {

// The most members of a rank group, and parts of a sum.
inline constexpr uint32_t kRankMembersMax = 64;

// out[i] = the tree over parts[0][i], parts[1][i], ... for i in [0, count). `out` may be one of the
// parts. REQUIRES: 1 to kRankMembersMax parts. Any thread. Where two parts are NaN the payload is
// unspecified.
void RankTreeSum(std::span<const float* const> parts, size_t count, float* out);

}  // namespace muselet
