// /metrics, /livez and /readyz of a process that has no gateway: schedulers and nodes. Open to
// whoever can reach the port, so bind it to an inner address.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "comms/event_loop.h"
#include "monitoring/metrics.h"
#include "node/gateway/http_server.h"

namespace muselet {

// OK, or why not; asked on the loop thread.
using HealthCallback = std::function<Status()>;

// The three probes, for a route table of any role. `registry` must outlive the server.
void AddProbeRoutes(HttpRoutes& routes, const MetricRegistry& registry, bool metrics_open,
                    HealthCallback live, HealthCallback ready);

// 200 {"status":"ok"}, or 503 with the reason.
HttpHandler HealthHandler(HealthCallback health);
// {"version": ...}
HttpHandler VersionHandler(const std::string& version);

struct AdminServerOptions {
  std::string address;  // HOST:PORT
  std::string address_option = "metrics";
  std::string version;
  HealthCallback live;   // absent: the loop turns, since it answers
  HealthCallback ready;  // absent: as live
};

// Lives on its loop; destroyed before it, on its thread or while it does not run.
class AdminServer {
 public:
  static Result<std::unique_ptr<AdminServer>> Start(AdminServerOptions options, EventLoop& loop,
                                                    const MetricRegistry& registry);
  const std::string& address() const { return server_->address(); }

 private:
  explicit AdminServer(std::unique_ptr<HttpServer> server) : server_(std::move(server)) {}
  std::unique_ptr<HttpServer> server_;
};

}  // namespace muselet
