// One replica as the rest of the cluster sees it: binds the endpoint where gateways submit,
// announces itself to every scheduler, and runs the step loop that computes.
//
// Messages: Hello, Submit, Cancel, Heartbeat come from gateways and are answered by Welcome,
// Unknown and Tokens (node/engine/node_admission decides). Each scheduler gets Hello until it says
// Welcome, then a Report every report_interval_us (a few a second while nothing runs); after
// Unknown, or when the connection was lost, Hello again. Reports stop when the step loop hangs, so
// that a replica that cannot compute is missed. While the engine is not available reports say that
// the replica takes nothing new, as when it drains; what it holds waits.
//
// Start, Stop and the destructor: on the loop's thread, or while the loop does not run. The other
// members: any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/messages.h"
#include "base/status.h"
#include "comms/event_loop.h"
#include "comms/message_socket.h"
#include "monitoring/metrics.h"
#include "node/engine/engine_options.h"
#include "node/engine/step_engine.h"
#include "node/model/model.h"

namespace muselet {

struct ReplicaServerOptions {
  std::string replica;                  // name from the config
  std::string model;                    // model id that requests name
  std::string endpoint;                 // bound for gateways; tcp port 0 lets the system choose
  std::vector<std::string> schedulers;  // their endpoints
  EngineOptions engine;
  int64_t silence_max_us = 750'000;  // reports come at least this often, whatever `engine` says
  LocalPeer local;                   // name and instance of the node
  std::string software_version;
  // A scheduler was told by an operator that this process is to drain. Loop thread.
  std::function<void()> drain_asked = nullptr;
};

struct ReplicaHealth {
  bool ready = false;  // can produce a token now: not draining, not hung, the engine takes plans
  std::string reason;  // if it is not ready: "r0 is draining"
  bool draining = false;
  // A step lasts longer than max(3 s, 8 x its usual time); twice that where the engine itself
  // notices and gives up. Not said of a replica whose engine is not available.
  bool hung = false;
  int64_t step_age_us = 0;  // how long the current turn of the step loop has lasted; 0 = parked
  uint64_t steps = 0;
  uint64_t schedulers_connected = 0;  // that said Welcome and were not lost since
  size_t sequences = 0;               // not yet ended
};

class ReplicaServer {
 public:
  // kUnavailable: the endpoint cannot be bound; kInvalidArgument: a bad endpoint. `loop`, `context`
  // and what `metrics` refers to outlive the server.
  static Result<std::unique_ptr<ReplicaServer>> Start(const ReplicaServerOptions& options,
                                                      std::unique_ptr<StepEngine> engine,
                                                      EventLoop& loop, WireContext& context,
                                                      const NodeMetrics& metrics);
  // Over a LocalStepEngine.
  static Result<std::unique_ptr<ReplicaServer>> Start(const ReplicaServerOptions& options,
                                                      std::shared_ptr<Model> model, EventLoop& loop,
                                                      WireContext& context,
                                                      const NodeMetrics& metrics);
  ~ReplicaServer();  // Stop
  ReplicaServer(const ReplicaServer&) = delete;
  ReplicaServer& operator=(const ReplicaServer&) = delete;

  const ReplicaInfo& info() const;  // with the endpoint that was really bound
  ReplicaHealth Health() const;
  // Takes no new sequences, tells the schedulers, finishes what runs. Idempotent.
  void Drain();
  // After Drain: nothing runs any more.
  bool drained() const;
  // Says Goodbye to the schedulers, ends the step thread and closes the sockets. What still runs is
  // dropped; gateways take it elsewhere. Idempotent.
  void Stop();

 private:
  class Core;
  explicit ReplicaServer(std::shared_ptr<Core> core);
  std::shared_ptr<Core> core_;  // shared with work posted to the loop
};

}  // namespace muselet
