// A surface: one front end of the cluster as the scheduler sees it, with what it may use and what
// it is promised. From the config's `surfaces`; keys of clients are the gateways' affair. Plain
// values.
#pragma once

#include <cstdint>
#include <string>

#include "base/types.h"

namespace muselet {

struct SurfaceOptions {
  std::string name = "default";
  RequestClass request_class = RequestClass::kInteractive;
  double share = 1.0;  // its weight among the surfaces of its class, > 0

  // Quotas of the whole cluster; 0 = none.
  uint32_t running_max = 0;  // requests with a ticket
  uint64_t requests_per_minute = 0;
  uint64_t tokens_per_minute = 0;  // prompt and answer

  // Of those that wait for a ticket; 0 = the scheduler's limits alone.
  uint32_t waiting_requests_max = 0;
  uint64_t waiting_tokens_max = 0;  // of their prompts

  // Objectives; 0 = none.
  int64_t ttft_us = 0;
  int64_t tpot_us = 0;  // per output token

  int64_t timeout_us = 0;   // of requests that name none; 0 = the gateway's
  std::string prefix_salt;  // surfaces of one salt share cached prefixes; empty = its name

  // Of the thought before an answer; 0 = no limit of the surface's own.
  uint32_t reasoning_tokens_default = 0;
  uint32_t reasoning_tokens_max = 0;
};

}  // namespace muselet
