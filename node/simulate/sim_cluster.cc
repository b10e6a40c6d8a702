#include "node/simulate/sim_cluster.h"

#include <memory>
#include <utility>

namespace muselet {
namespace {

std::string Name(const char* kind, uint32_t index) {
  return kind + std::to_string(index);
}

}  // namespace

SimCluster::SimCluster(const SimClusterOptions& options, Listener listener)
    : options_(options),
      listener_(std::move(listener)),
      world_(options.seed, options.links),
      network_(world_) {
  for (uint32_t i = 0; i < options.schedulers; ++i) {
    network_.Add(Name("sim://s", i), [this, i](const SimSelf& self) {
      return std::make_unique<RouterActor>(network_, self, SchedulerOptions(i));
    });
  }
  for (uint32_t i = 0; i < options.gateways; ++i) {
    network_.Add(Name("sim://g", i), [this, i](const SimSelf& self) {
      return std::make_unique<GatewayActor>(
          network_, self, GatewayOptions(i),
          [this, i](const OwnerEvent& event) { listener_(i, event); });
    });
  }
  for (uint32_t i = 0; i < options.nodes; ++i) {
    network_.Add(Name("sim://n", i), [this, i](const SimSelf& self) {
      return std::make_unique<NodeActor>(network_, self, NodeOptions(i));
    });
  }
}

void SimCluster::StartAll() {
  for (SimProcess process = 0; process < process_count(); ++process) network_.Start(process);
}

std::vector<std::string> SimCluster::SchedulerEndpoints() const {
  std::vector<std::string> endpoints;
  for (uint32_t i = 0; i < options_.schedulers; ++i) endpoints.push_back(Name("sim://s", i));
  return endpoints;
}

RouterActorOptions SimCluster::SchedulerOptions(uint32_t index) const {
  RouterActorOptions options;
  options.name = Name("s", index);
  options.models = {options_.model};
  options.route = options_.route;
  options.surfaces = options_.surfaces;
  options.reconnect_us = options_.reconnect_us;
  return options;
}

GatewayActorOptions SimCluster::GatewayOptions(uint32_t index) const {
  GatewayActorOptions options;
  options.name = Name("g", index);
  options.schedulers = SchedulerEndpoints();
  options.models = {options_.model};
  options.owner = options_.owner;
  options.timing = options_.gateway_timing;
  return options;
}

NodeActorOptions SimCluster::NodeOptions(uint32_t index) const {
  NodeActorOptions options;
  options.node = Name("n", index);
  options.replica = Name("r", index);
  options.model = options_.model;
  options.endpoint = Name("sim://n", index);
  options.schedulers = SchedulerEndpoints();
  options.timing = options_.node_timing;
  options.engine = options_.engine;
  return options;
}

RouterActor* SimCluster::scheduler(uint32_t index) const {
  return static_cast<RouterActor*>(network_.actor(scheduler_process(index)));
}

GatewayActor* SimCluster::gateway(uint32_t index) const {
  return static_cast<GatewayActor*>(network_.actor(gateway_process(index)));
}

NodeActor* SimCluster::node(uint32_t index) const {
  return static_cast<NodeActor*>(network_.actor(node_process(index)));
}

bool SimCluster::ready() const {
  for (uint32_t i = 0; i < options_.gateways; ++i)
    if (gateway(i) == nullptr || !gateway(i)->ready()) return false;
  return true;
}

}  // namespace muselet
