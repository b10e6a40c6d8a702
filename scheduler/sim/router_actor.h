// A scheduler of a simulated cluster: the real Router, driven as scheduler_service drives it.
#pragma once

#include <string>
#include <vector>

#include "scheduler/route/router.h"
#include "scheduler/sim/sim_network.h"

namespace muselet {

struct RouterActorOptions {
  std::string name;
  std::vector<std::string> models;
  RouteOptions route;
  std::vector<SurfaceOptions> surfaces;
  int64_t tick_us = 50'000;
  int64_t reconnect_us = 600'000;  // a broken connection is given so long
};

class RouterActor final : public SimActor {
 public:
  RouterActor(SimNetwork& network, const SimSelf& self, const RouterActorOptions& options);

  void Start() override;
  void OnMessage(const std::string& peer, Envelope envelope) override;
  void OnDisconnect(SimProcess peer) override;
  // Leaves on purpose; the process may crash now.
  void SayGoodbye();

  const Router& router() const { return router_; }

 private:
  void Tick();
  void Deliver(std::vector<Outgoing> messages, bool probing = false);

  SimNetwork& network_;
  const SimSelf self_;
  const RouterActorOptions options_;
  Router router_;
  int64_t probe_at_us_ = 0;
};

}  // namespace muselet
