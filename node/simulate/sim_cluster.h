// A cluster on virtual time: gateways, schedulers and nodes with the real cores of each, over a
// simulated network. Made and run by a capacity plan (node/simulate/capacity) and by the property
// tests. Single-threaded.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "node/simulate/gateway_actor.h"
#include "node/simulate/node_actor.h"
#include "scheduler/sim/router_actor.h"
#include "scheduler/sim/sim_network.h"

namespace muselet {

struct SimClusterOptions {
  uint64_t seed = 1;
  LinkFaults links;
  std::string model = "m";
  uint32_t gateways = 1;
  uint32_t schedulers = 1;
  uint32_t nodes = 1;  // of one replica each
  RequestOwnerOptions owner;
  PeerTiming gateway_timing;
  RouteOptions route;
  std::vector<SurfaceOptions> surfaces;
  int64_t reconnect_us = 600'000;
  PeerTiming node_timing{100'000, 3'000'000};
  SimReplicaOptions engine;
};

class SimCluster {
 public:
  // What a gateway tells of its requests. Must not tell it anything from within: After(0) does.
  using Listener = std::function<void(uint32_t gateway, const OwnerEvent& event)>;

  // Adds all processes; none is started. What `options` says is the first start's and every later
  // one's.
  SimCluster(const SimClusterOptions& options, Listener listener);
  void StartAll();

  const SimClusterOptions& options() const { return options_; }
  SimWorld& world() { return world_; }
  SimNetwork& network() { return network_; }
  uint32_t process_count() const { return static_cast<uint32_t>(network_.size()); }

  // Null while it is down.
  RouterActor* scheduler(uint32_t index) const;
  GatewayActor* gateway(uint32_t index) const;
  NodeActor* node(uint32_t index) const;
  SimProcess scheduler_process(uint32_t index) const { return index; }
  SimProcess gateway_process(uint32_t index) const { return options_.schedulers + index; }
  SimProcess node_process(uint32_t index) const {
    return options_.schedulers + options_.gateways + index;
  }
  // Every gateway can have tokens produced.
  bool ready() const;

 private:
  RouterActorOptions SchedulerOptions(uint32_t index) const;
  GatewayActorOptions GatewayOptions(uint32_t index) const;
  NodeActorOptions NodeOptions(uint32_t index) const;
  std::vector<std::string> SchedulerEndpoints() const;

  const SimClusterOptions options_;
  const Listener listener_;
  SimWorld world_;
  SimNetwork network_;
};

}  // namespace muselet
