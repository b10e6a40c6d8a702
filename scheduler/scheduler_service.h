// The role scheduler: the Router on an event loop, behind a socket. Owns the socket, the timers and
// the core; its loop thread runs all of it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "comms/event_loop.h"
#include "comms/message_socket.h"
#include "monitoring/metrics.h"
#include "scheduler/route/route_options.h"
#include "scheduler/route/surface_options.h"

namespace muselet {

struct SchedulerServiceOptions {
  std::string name;                 // from the config
  std::string endpoint;             // to bind: tcp://, ipc:// or inproc://
  std::vector<std::string> models;  // ids that the cluster serves; others are refused
  RouteOptions route;
  std::vector<SurfaceOptions> surfaces;  // those that may ask; empty: whoever asks
  // An operator asked this very scheduler to drain. Loop thread.
  std::function<void()> drain_asked = nullptr;
};

class SchedulerService {
 public:
  // kUnavailable or kInvalidArgument naming the endpoint if it cannot be bound. Call it on the loop
  // thread, or before the loop runs; the same for the destructor (or after the loop has ended). The
  // references outlive the service.
  static Result<std::unique_ptr<SchedulerService>> Start(const SchedulerServiceOptions& options,
                                                         const LocalPeer& local, EventLoop& loop,
                                                         WireContext& context,
                                                         SchedulerMetrics& metrics);
  virtual ~SchedulerService() = default;

  // Where nodes and gateways connect. Any thread.
  virtual const std::string& endpoint() const = 0;
  // OK while the loop turns and each model has a ready replica; otherwise says what is missing. Any
  // thread.
  virtual Status Ready() const = 0;
};

}  // namespace muselet
