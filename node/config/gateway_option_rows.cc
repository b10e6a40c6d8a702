// Options of gateways.
#include "node/config/option_rows.h"

namespace muselet {
namespace {

void AddGateway(std::vector<Option>& rows) {
  const char* group = "Gateway";
  AddOption(
      rows, group,
      {"gateway.text_threads", ValueKind::kInteger,
       "Threads for templates, tokenizer and detokenizer", 1, 256},
      [](auto& c) -> auto& { return c.gateway.text_threads; });
  AddOption(
      rows, group,
      {"gateway.heartbeat_interval", ValueKind::kDuration,
       "Time between two heartbeats to schedulers and nodes", 10e3, 60e6},
      [](auto& c) -> auto& { return c.gateway.heartbeat_interval_us; });
  AddOption(
      rows, group,
      {"gateway.peer_timeout", ValueKind::kDuration,
       "Silence after which a scheduler or node counts as lost", 100e3, 3600e6},
      [](auto& c) -> auto& { return c.gateway.peer_timeout_us; });
  AddOption(
      rows, group,
      {"gateway.idempotency_keys_max", ValueKind::kInteger,
       "Idempotency keys remembered, so that one that comes with another body is refused", 1, 1e8},
      [](auto& c) -> auto& { return c.gateway.idempotency_keys_max; });
  AddOption(
      rows, group,
      {"gateway.audit_fraction", ValueKind::kNumber,
       "Part of the answers that is computed again on another replica and compared", 0, 1},
      [](auto& c) -> auto& { return c.gateway.audit_fraction; });
  AddOption(
      rows, group,
      {"gateway.audits_max", ValueKind::kInteger,
       "Audits at once in one gateway; answers beyond are not audited", 1, 100000},
      [](auto& c) -> auto& { return c.gateway.audits_max; });
}

void AddHttp(std::vector<Option>& rows) {
  const char* group = "HTTP";
  AddOption(
      rows, group,
      {"gateway.http.connections_max", ValueKind::kInteger,
       "Open connections; more are closed at once", 1, 65536},
      [](auto& c) -> auto& { return c.gateway.http.connections_max; });
  AddOption(
      rows, group,
      {"gateway.http.header_bytes_max", ValueKind::kBytes, "Size of a request's header", 1024,
       1048576},
      [](auto& c) -> auto& { return c.gateway.http.header_bytes_max; });
  AddOption(
      rows, group,
      {"gateway.http.body_bytes_max", ValueKind::kBytes, "Size of a request's body", 1024,
       1073741824},
      [](auto& c) -> auto& { return c.gateway.http.body_bytes_max; });
  AddOption(
      rows, group,
      {"gateway.http.json_depth_max", ValueKind::kInteger,
       "Nesting of arrays and objects in a body", 4, 512},
      [](auto& c) -> auto& { return c.gateway.http.json_depth_max; });
  AddOption(
      rows, group,
      {"gateway.http.header_timeout", ValueKind::kDuration, "Time for a client to send the header",
       10e3, 3600e6},
      [](auto& c) -> auto& { return c.gateway.http.header_timeout_us; });
  AddOption(
      rows, group,
      {"gateway.http.body_timeout", ValueKind::kDuration, "Time for a client to send the body",
       10e3, 3600e6},
      [](auto& c) -> auto& { return c.gateway.http.body_timeout_us; });
  AddOption(
      rows, group,
      {"gateway.http.idle_timeout", ValueKind::kDuration,
       "Time between two requests on a connection", 10e3, 86400e6},
      [](auto& c) -> auto& { return c.gateway.http.idle_timeout_us; });
  AddOption(
      rows, group,
      {"gateway.http.write_timeout", ValueKind::kDuration,
       "Time for a client to take what was sent; a slower reader is cancelled", 10e3, 3600e6},
      [](auto& c) -> auto& { return c.gateway.http.write_timeout_us; });
  AddOption(
      rows, group,
      {"gateway.http.stream_buffer_bytes", ValueKind::kBytes,
       "Unsent bytes of one stream; more cancels it", 4096, 268435456},
      [](auto& c) -> auto& { return c.gateway.http.stream_buffer_bytes; });
  AddOption(
      rows, group,
      {"gateway.http.keep_alive_interval", ValueKind::kDuration,
       "A stream without news sends a comment this often", 100e3, 3600e6},
      [](auto& c) -> auto& { return c.gateway.http.keep_alive_interval_us; });
}

void AddRequests(std::vector<Option>& rows) {
  const char* group = "Requests";
  AddOption(
      rows, group,
      {"gateway.request.requests_max", ValueKind::kInteger,
       "Requests in flight in one gateway; more are refused with 429", 1, 1000000},
      [](auto& c) -> auto& { return c.gateway.request.requests_max; });
  AddOption(
      rows, group,
      {"gateway.request.choices_max", ValueKind::kInteger, "Largest n of a request", 1, 256},
      [](auto& c) -> auto& { return c.gateway.request.choices_max; });
  AddOption(
      rows, group,
      {"gateway.request.top_logprobs_max", ValueKind::kInteger, "Largest top_logprobs of a request",
       0, 1024},
      [](auto& c) -> auto& { return c.gateway.request.top_logprobs_max; });
  AddOption(
      rows, group,
      {"gateway.request.stop_strings_max", ValueKind::kInteger, "Stop strings of a request", 0,
       256},
      [](auto& c) -> auto& { return c.gateway.request.stop_strings_max; });
  AddOption(
      rows, group,
      {"gateway.request.stop_bytes_max", ValueKind::kBytes, "Size of one stop string", 1, 65536},
      [](auto& c) -> auto& { return c.gateway.request.stop_bytes_max; });
  AddOption(
      rows, group,
      {"gateway.request.logit_bias_max", ValueKind::kInteger, "Entries of logit_bias", 0, 100000},
      [](auto& c) -> auto& { return c.gateway.request.logit_bias_max; });
  AddOption(
      rows, group,
      {"gateway.request.max_tokens_default", ValueKind::kInteger,
       "max_tokens of a request that names none; 0 is what is left of the context", 0, 16777216},
      [](auto& c) -> auto& { return c.gateway.request.max_tokens_default; });
  AddOption(
      rows, group,
      {"gateway.request.attempts_max", ValueKind::kInteger,
       "Attempts in a row without a token, the first included, after which a request fails", 1,
       100},
      [](auto& c) -> auto& { return c.gateway.request.attempts_max; });
  AddOption(
      rows, group,
      {"gateway.request.retry_share", ValueKind::kNumber,
       "Further attempts of requests that made no progress, as a share of all requests", 0, 10},
      [](auto& c) -> auto& { return c.gateway.request.retry_share; });
  AddOption(
      rows, group,
      {"gateway.request.retry_reserve", ValueKind::kInteger,
       "Such attempts that may come at once; the reserve fills again in a minute", 0, 1000000},
      [](auto& c) -> auto& { return c.gateway.request.retry_reserve; });
  AddOption(
      rows, group,
      {"gateway.request.timeout", ValueKind::kDuration, "Time for a whole request that names none",
       10e3, 86400e6},
      [](auto& c) -> auto& { return c.gateway.request.timeout_us; });
  AddOption(
      rows, group,
      {"gateway.request.place_timeout", ValueKind::kDuration,
       "Time that a request waits for a replica", 10e3, 3600e6},
      [](auto& c) -> auto& { return c.gateway.request.place_timeout_us; });
}

}  // namespace

std::vector<Option> GatewayOptionRows() {
  std::vector<Option> rows;
  AddGateway(rows);
  AddHttp(rows);
  AddRequests(rows);
  return rows;
}

}  // namespace muselet
