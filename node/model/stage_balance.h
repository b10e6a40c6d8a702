// Dividing layers over the stages of a pipeline, so that the slowest stage is as fast as it can be.
#pragma once

#include <cstdint>
#include <vector>

namespace muselet {

// The number of consecutive layers of each stage, at least one: the largest sum of costs is as
// small as possible, `last_extra` counting to the last stage; among those, the sum of squares is.
// REQUIRES: 1 <= stages <= costs.size().
std::vector<uint32_t> BalanceStages(const std::vector<uint64_t>& costs, uint64_t last_extra,
                                    uint32_t stages);

}  // namespace muselet
