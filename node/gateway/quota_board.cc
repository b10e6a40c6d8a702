#include "node/gateway/quota_board.h"

#include <algorithm>

namespace muselet {
namespace {

constexpr uint64_t kNoLimit = (uint64_t{1} << 53) - 1;

struct Part {
  uint64_t limit = 0;
  double remaining = 0;
  int64_t reset_us = 0;
};

// What a bucket that fills evenly holds `passed_us` later.
void Add(uint64_t limit, uint64_t remaining, int64_t reset_us, int64_t passed_us, Part& sum) {
  const auto used = static_cast<double>(limit - std::min(limit, remaining));
  const double left = reset_us <= passed_us ? 0
                                            : used * static_cast<double>(reset_us - passed_us) /
                                                  static_cast<double>(reset_us);
  sum.limit += limit;
  sum.reset_us = std::max(sum.reset_us, reset_us - passed_us);
  sum.remaining += static_cast<double>(limit) - left;
}

// `limit` is the whole cluster's. Schedulers may have split it anew since they spoke.
void Conclude(const Part& sum, uint64_t limit, uint64_t& limit_out, uint64_t& remaining,
              int64_t& reset_us) {
  limit_out = limit;
  if (limit == 0) return;
  const double part = sum.limit == 0 ? 1.0 : sum.remaining / static_cast<double>(sum.limit);
  remaining = static_cast<uint64_t>(static_cast<double>(limit) * std::clamp(part, 0.0, 1.0));
  reset_us = sum.reset_us;
}

}  // namespace

void QuotaBoard::Note(uint32_t scheduler, const std::string& surface, const QuotaState& quota,
                      int64_t now_us) {
  told_[{surface, scheduler}] = {quota, now_us};
}

void QuotaBoard::Forget(uint32_t scheduler) {
  std::erase_if(told_, [&](const auto& entry) { return entry.first.second == scheduler; });
}

QuotaState QuotaBoard::At(const SurfaceOptions& surface, int64_t now_us) const {
  Part requests;
  Part tokens;
  for (auto told = told_.lower_bound({surface.name, 0});
       told != told_.end() && told->first.first == surface.name; ++told) {
    const QuotaState& quota = told->second.quota;
    const int64_t passed_us = now_us - told->second.told_us;
    Add(quota.requests_limit, quota.requests_remaining, quota.requests_reset_us, passed_us,
        requests);
    Add(quota.tokens_limit, quota.tokens_remaining, quota.tokens_reset_us, passed_us, tokens);
  }
  QuotaState state;
  Conclude(requests, surface.requests_per_minute, state.requests_limit, state.requests_remaining,
           state.requests_reset_us);
  Conclude(tokens, surface.tokens_per_minute, state.tokens_limit, state.tokens_remaining,
           state.tokens_reset_us);
  return state;
}

std::string ResetText(int64_t us) {
  const int64_t ms = (us + 999) / 1000;
  if (ms <= 0) return "0s";
  if (ms < 1000) return std::to_string(ms) + "ms";
  const int64_t seconds = ms / 1000;
  if (seconds >= 60) return std::to_string(seconds / 60) + "m" + std::to_string(seconds % 60) + "s";
  std::string text = std::to_string(seconds);
  if (ms % 1000 != 0) {
    std::string fraction = std::to_string(1000 + ms % 1000).substr(1);
    fraction.erase(fraction.find_last_not_of('0') + 1);
    text += "." + fraction;
  }
  return text + "s";
}

void AppendRateLimits(const QuotaState& quota, HttpHeaders& headers) {
  const auto append = [&](const std::string& what, uint64_t limit, uint64_t remaining,
                          int64_t reset_us) {
    headers.emplace_back("x-ratelimit-limit-" + what, std::to_string(limit ? limit : kNoLimit));
    headers.emplace_back("x-ratelimit-remaining-" + what,
                         std::to_string(limit ? remaining : kNoLimit));
    headers.emplace_back("x-ratelimit-reset-" + what, ResetText(limit ? reset_us : 0));
  };
  append("requests", quota.requests_limit, quota.requests_remaining, quota.requests_reset_us);
  append("tokens", quota.tokens_limit, quota.tokens_remaining, quota.tokens_reset_us);
}

}  // namespace muselet
