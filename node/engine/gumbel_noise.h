// The noise of the one sampling rule (DESIGN, section 2): for a seed, a choice, a position and an
// id
//
//   u = (w + 1/2) / 2^32,  w = word 0 of Philox4x32({id, position, choice, 0}, seed)
//   noise = -log(-log u)                                  (standard Gumbel)
//
// so that argmax over ids of logit / T + noise is a draw from softmax(logit / T). u is never nearer
// to 0 or 1 than 2^-33, hence kMin <= noise <= kMax: an id whose logit / T lies more than kMax
// under the best sum so far cannot win, and its noise need not be drawn. What is cut off has a
// probability below 2^-32.
#pragma once

#include <array>
#include <cstdint>

#include "base/types.h"

namespace muselet {

class GumbelNoise {
 public:
  static constexpr double kMin = -3.14;   // -log(33 log 2) = -3.1300...
  static constexpr double kMax = 22.875;  // 33 log 2 = 22.8738...

  // One draw's key.
  struct Key {
    uint64_t seed = 0;
    uint32_t choice = 0;
    uint32_t position = 0;  // of the token to be drawn, in prompt + answer
  };

  GumbelNoise();

  static double Draw(const Key& key, TokenId id);

  // The noise if it may exceed `least`, else something no greater than it: saves the logarithms of
  // draws that are clearly too small.
  double DrawIfAbove(const Key& key, TokenId id, double least) const;

 private:
  static constexpr int kSteps = 24;
  // word_floor_[n]: every word below it has noise < n.
  std::array<uint32_t, kSteps> word_floor_{};
};

}  // namespace muselet
