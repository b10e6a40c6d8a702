#include "node/model/stage_balance.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace muselet {
namespace {

using Grid = std::vector<std::vector<double>>;  // [stages used][layers placed]

constexpr double kImpossible = std::numeric_limits<double>::infinity();

// Whether `stages` stages of at most `most` hold all. Filled from the front: what is left for the
// last stage is the least possible.
bool Fits(const std::vector<uint64_t>& costs, uint64_t last_extra, uint32_t stages, uint64_t most) {
  size_t layer = 0;
  for (uint32_t stage = 0; stage < stages; ++stage) {
    const bool last = stage + 1 == stages;
    const size_t left_for_others = stages - 1 - stage;
    uint64_t sum = last ? last_extra : 0;
    size_t taken = 0;
    while (layer + left_for_others < costs.size() && sum + costs[layer] <= most) {
      sum += costs[layer++];
      ++taken;
    }
    if (taken == 0) return false;
  }
  return layer == costs.size();
}

uint64_t SmallestMaximum(const std::vector<uint64_t>& costs, uint64_t last_extra, uint32_t stages) {
  uint64_t low = 0, high = last_extra;
  for (const uint64_t cost : costs) high += cost;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (Fits(costs, last_extra, stages, middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace

std::vector<uint32_t> BalanceStages(const std::vector<uint64_t>& costs, uint64_t last_extra,
                                    uint32_t stages) {
  const size_t layers = costs.size();
  CHECK(stages >= 1 && stages <= layers, "a stage needs a layer");
  const uint64_t most = SmallestMaximum(costs, last_extra, stages);
  Grid squares(stages + 1, std::vector<double>(layers + 1, kImpossible));
  std::vector<std::vector<uint32_t>> taken(stages + 1, std::vector<uint32_t>(layers + 1, 0));
  squares[0][0] = 0.0;
  for (uint32_t stage = 1; stage <= stages; ++stage) {
    for (size_t end = stage; end <= layers; ++end) {
      uint64_t sum = stage == stages ? last_extra : 0;
      for (size_t begin = end; begin-- > stage - 1;) {
        sum += costs[begin];
        if (sum > most) break;
        const auto load = static_cast<double>(sum);
        const double total = squares[stage - 1][begin] + load * load;
        if (total < squares[stage][end]) {
          squares[stage][end] = total;
          taken[stage][end] = static_cast<uint32_t>(end - begin);
        }
      }
    }
  }
  std::vector<uint32_t> counts(stages);
  size_t end = layers;
  for (uint32_t stage = stages; stage > 0; --stage) {
    counts[stage - 1] = taken[stage][end];
    end -= counts[stage - 1];
  }
  return counts;
}

}  // namespace muselet
