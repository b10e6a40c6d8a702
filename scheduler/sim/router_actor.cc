#include "scheduler/sim/router_actor.h"

#include <utility>

namespace muselet {

RouterActor::RouterActor(SimNetwork& network, const SimSelf& self,
                         const RouterActorOptions& options)
    : network_(network),
      self_(self),
      options_(options),
      router_(options.name, options.models, options.route, options.surfaces) {}

void RouterActor::Start() {
  network_.world().After(self_.process, options_.tick_us, [this] { Tick(); });
}

void RouterActor::OnMessage(const std::string& peer, Envelope envelope) {
  Deliver(router_.OnMessage(peer, envelope, network_.world().now_us()));
}

void RouterActor::OnDisconnect(SimProcess /*peer*/) {
  probe_at_us_ = network_.world().now_us() + options_.reconnect_us;
}

void RouterActor::SayGoodbye() {
  Deliver(router_.Farewell());
}

void RouterActor::Tick() {
  const int64_t now_us = network_.world().now_us();
  network_.world().After(self_.process, options_.tick_us, [this] { Tick(); });
  Deliver(router_.OnTick(now_us));
  if (probe_at_us_ == 0 || now_us < probe_at_us_) return;
  probe_at_us_ = 0;
  std::vector<Outgoing> probes;
  for (const auto& [id, peer] : router_.peers().peers()) probes.push_back({id, Heartbeat{}});
  Deliver(std::move(probes), true);
}

void RouterActor::Deliver(std::vector<Outgoing> messages, bool probing) {
  std::vector<std::string> unreachable;
  for (Outgoing& outgoing : messages) {
    const Status sent =
        network_.Answer(self_, options_.name, outgoing.peer, std::move(outgoing.message));
    if (sent.code() == StatusCode::kUnavailable && probing) unreachable.push_back(outgoing.peer);
  }
  for (const std::string& peer : unreachable)
    Deliver(router_.OnUnreachable(peer, network_.world().now_us()));
  (void)router_.TakeEvents();
  (void)router_.TakeQueueTimesUs();
}

}  // namespace muselet
