// An HTTP/1.1 server on one port, on the loop of its role: connections, limits, framing and
// streams. What the routes mean is the caller's affair; every role's /metrics and the gateway's
// whole API stand on this.
//
// Loop thread only, or while the loop does not run. Must be destroyed before the loop.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "comms/event_loop.h"
#include "node/gateway/gateway_options.h"
#include "node/gateway/http_message.h"
#include "node/gateway/http_routes.h"

namespace muselet {

// Lets a request to a route that is not open in (and sets request.principal), or says what to
// answer instead. Runs before the body is read.
using HttpAuthorizer = std::function<std::optional<HttpResponse>(HttpRequest& request)>;

struct HttpServerOptions {
  std::string address;                    // HOST:PORT or [IPV6]:PORT; port 0 lets the system choose
  std::string address_option = "--http";  // named in faults as what to change
  HttpLimits limits;
  HttpAuthorizer authorize;                   // absent: routes that are not open answer 403
  std::function<void(int status)> responded;  // each answer, when its head is queued
  // Adds headers to an answer when its head is written, refusals included; the request's body may
  // be gone by then.
  std::function<void(const HttpRequest& request, int status, HttpHeaders& headers)> decorate;
  std::function<void(size_t open)> connections_changed;
};

class HttpServer {
 public:
  // Binds and listens. kInvalidArgument for an address that cannot be used, kPermissionDenied,
  // kUnavailable if it is taken; each says what to change.
  static Result<std::unique_ptr<HttpServer>> Start(HttpServerOptions options, HttpRoutes routes,
                                                   EventLoop& loop);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // The bound address, with the real port.
  const std::string& address() const;
  size_t connections() const;
  // From now on each answer is the last one of its connection; new connections are still taken and
  // routes still asked, so that probes hear that the process leaves. When no request is open any
  // more, the port and the idle connections are closed and `drained` runs from the loop.
  void Drain(std::function<void()> drained);

 private:
  class Core;
  explicit HttpServer(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;
};

}  // namespace muselet
