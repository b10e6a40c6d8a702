// How many further attempts a gateway may begin for requests that get nowhere, so that a fault of
// the cluster is not multiplied by those who ask again. A token bucket: each request adds a share,
// each such attempt takes one; a reserve fills again in a minute.
//
// Not thread-safe: owned by the gateway's loop.
#pragma once

#include <algorithm>
#include <cstdint>

namespace muselet {

class RetryBudget {
 public:
  // `share` of an attempt for each request; at most `reserve` are saved up.
  RetryBudget(double share, uint32_t reserve) : share_(share), reserve_(reserve), left_(reserve) {}

  void AddRequest() { left_ = std::min(reserve_, left_ + share_); }
  // False if nothing is left.
  bool Take(int64_t now_us) {
    constexpr double kMinuteUs = 60e6;
    const auto passed_us = static_cast<double>(std::max<int64_t>(0, now_us - filled_us_));
    if (filled_us_ != 0) left_ = std::min(reserve_, left_ + reserve_ * passed_us / kMinuteUs);
    filled_us_ = now_us;
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
  }

 private:
  const double share_;
  const double reserve_;
  double left_;
  int64_t filled_us_ = 0;
};

}  // namespace muselet
