// What schedulers said last of what is left of the surfaces' quotas, and how it is told to clients.
// Each scheduler hands out a part of the whole; what is left is the sum.
//
// Owned by a gateway's loop. Times are microseconds of one monotonic clock.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/messages.h"
#include "node/gateway/http_message.h"
#include "scheduler/route/surface_options.h"

namespace muselet {

class QuotaBoard {
 public:
  void Note(uint32_t scheduler, const std::string& surface, const QuotaState& quota,
            int64_t now_us);
  // A scheduler that is gone hands out nothing.
  void Forget(uint32_t scheduler);
  // Limits are those of the config; a limit of 0 is none.
  QuotaState At(const SurfaceOptions& surface, int64_t now_us) const;

 private:
  struct Told {
    QuotaState quota;
    int64_t told_us = 0;
  };
  std::map<std::pair<std::string, uint32_t>, Told> told_;
};

// x-ratelimit-{limit,remaining,reset}-{requests,tokens}, as OpenAI writes them. Where there is no
// limit, the largest number that every JSON reader can hold stands for it.
void AppendRateLimits(const QuotaState& quota, HttpHeaders& headers);

// "0s", "120ms", "1.5s", "6m0s".
std::string ResetText(int64_t us);

}  // namespace muselet
