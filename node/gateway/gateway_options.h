// The knobs of a gateway; keys, flags and documentation are in node/config/option_table.
#pragma once

#include <cstdint>
#include <string>

namespace muselet {

struct HttpLimits {
  uint32_t connections_max = 1024;
  uint32_t header_bytes_max = 16 * 1024;
  uint32_t body_bytes_max = 4 * 1024 * 1024;
  uint32_t json_depth_max = 32;
  int64_t header_timeout_us = 5'000'000;
  int64_t body_timeout_us = 30'000'000;
  int64_t idle_timeout_us = 60'000'000;
  int64_t write_timeout_us = 10'000'000;        // a reader this slow is cancelled
  uint32_t stream_buffer_bytes = 256 * 1024;    // unsent bytes of one stream; more cancels it
  int64_t keep_alive_interval_us = 10'000'000;  // SSE comment while nothing comes
};

struct RequestLimits {
  uint32_t requests_max = 1024;  // in flight in one gateway; more are refused with 429
  uint32_t choices_max = 16;     // n
  uint32_t top_logprobs_max = 20;
  uint32_t stop_strings_max = 16;
  uint32_t stop_bytes_max = 1024;  // of one stop string
  uint32_t logit_bias_max = 1024;
  uint32_t max_tokens_default = 0;  // 0 = what is left of the context
  uint32_t attempts_max = 5;        // of a request in a row without a token, the first included
  // Further attempts of requests that made no progress: this share of all requests, and a reserve
  // that fills again in a minute.
  double retry_share = 0.2;
  uint32_t retry_reserve = 256;
  int64_t timeout_us = 600'000'000;       // when the client names none
  int64_t place_timeout_us = 30'000'000;  // waiting for a ticket
};

struct GatewayOptions {
  HttpLimits http;
  RequestLimits request;
  uint32_t text_threads = 1;
  int64_t heartbeat_interval_us = 250'000;
  int64_t peer_timeout_us = 3'000'000;
  uint32_t idempotency_keys_max = 65'536;  // remembered, so that a key with another body is refused
  double audit_fraction = 0;               // of the answers, computed again on another replica
  uint32_t audits_max = 8;                 // at once; further ones are left out
};

}  // namespace muselet
