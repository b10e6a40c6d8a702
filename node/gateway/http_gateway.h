// The HTTP door of a gateway: OpenAI's API (and vLLM's extensions of it) over a GenerationService.
// Everything runs on the gateway's loop thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "comms/event_loop.h"
#include "monitoring/metrics.h"
#include "node/gateway/admin_server.h"
#include "node/gateway/gateway_options.h"
#include "node/gateway/generation.h"
#include "node/gateway/http_server.h"
#include "node/gateway/request_origin.h"

namespace muselet {

// A tenant. Its keys are read from a file once, at start.
struct HttpSurface {
  std::string name = "default";
  std::string key_file;  // one key a line, '#' comments; empty = none
  RequestClass request_class = RequestClass::kInteractive;
};

struct HttpGatewayOptions {
  std::string address = "127.0.0.1:8000";  // port 0 lets the system choose
  std::string address_option = "--http";   // named in faults about the address
  GatewayOptions gateway;                  // http limits and request limits count here
  // If any surface has a key, requests need one (probes and version excepted) and surfaces without
  // keys cannot be reached over HTTP; otherwise all requests belong to the first surface. None =
  // one surface "default".
  std::vector<HttpSurface> surfaces;
  std::string version;       // of this program, for /version
  bool metrics_open = true;  // /metrics without a key
  HealthCallback live;       // /livez; absent: the loop turns, since it answers
  // Idempotency-Key and Last-Event-ID; null: they are not heeded. Shared with the other doors of
  // this gateway.
  std::shared_ptr<RequestOrigins> origins;
};

// Made, called and destroyed on the loop thread or while the loop does not run; destroyed before
// the service, the loop and the metrics.
class HttpGateway {
 public:
  // Faults of the address (as HttpServer::Start), of key files (kNotFound, kPermissionDenied,
  // kInvalidArgument naming file and line).
  static Result<std::unique_ptr<HttpGateway>> Start(HttpGatewayOptions options,
                                                    GenerationService& service, EventLoop& loop,
                                                    const MetricRegistry& registry,
                                                    const GatewayMetrics& metrics);
  ~HttpGateway();
  HttpGateway(const HttpGateway&) = delete;
  HttpGateway& operator=(const HttpGateway&) = delete;

  // The bound address, with the real port.
  const std::string& address() const;
  // From now on /readyz says 503 and nothing new is generated (503 with Retry-After); what runs
  // goes on. When the last answer is out, the port is closed and `drained` runs.
  void Drain(std::function<void()> drained);
  // The first half of Drain alone: generation is refused, nothing closes.
  void RefuseGeneration();

 private:
  struct Api;
  explicit HttpGateway(std::unique_ptr<Api> api);
  std::unique_ptr<Api> api_;
};

}  // namespace muselet
