// A gateway of a simulated cluster: the real RequestOwner, driven as node/gateway's
// generation_service, peer_link and node_links drive it. What it tells of requests goes to a
// listener.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/peer_session.h"
#include "node/gateway/request_owner.h"
#include "scheduler/sim/sim_network.h"

namespace muselet {

struct GatewayActorOptions {
  std::string name;
  std::vector<std::string> schedulers;  // endpoints
  std::vector<std::string> models;
  RequestOwnerOptions owner;  // `schedulers` is filled in
  PeerTiming timing;
  int64_t tick_us = 20'000;
};

class GatewayActor final : public SimActor {
 public:
  using Listener = std::function<void(const OwnerEvent& event)>;

  GatewayActor(SimNetwork& network, const SimSelf& self, const GatewayActorOptions& options,
               Listener listener);

  void Start() override;
  void OnMessage(const std::string& peer, Envelope envelope) override;
  void OnDisconnect(SimProcess peer) override;

  // StartRequest, CancelRequest, StopChoice or EndAll, from within a client's event.
  void Tell(OwnerInput input) { Drive(std::move(input)); }
  // Leaves on purpose; the process may crash now.
  void SayGoodbye();

  const RequestOwner& owner() const { return owner_; }
  // Joined with a scheduler that knows a ready replica of each model.
  bool ready() const;

 private:
  struct Scheduler {
    SimProcess process = 0;
    ClientSession session;
    std::vector<ModelState> table;
  };
  struct Node {
    SimProcess process = 0;
    ClientSession session;
    std::deque<Message> waiting;
    int64_t waiting_since_us = 0;
    int64_t used_us = 0;
  };
  Hello MakeHello() const;
  void Drive(OwnerInput input);
  void Tick();

  void SendToScheduler(uint32_t index, Message message);
  void ApplyScheduler(uint32_t index, ClientSession::Step step);
  void FromSchedulerMessage(uint32_t index, Message message);
  void TellReplicas();

  void SendToNode(const std::string& endpoint, Message message);
  void ApplyNode(const std::string& endpoint, ClientSession::Step step);
  // Sends what the session says; the first that is not taken breaks the connection.
  void Flush(const std::string& endpoint);
  void TickNodes();
  int64_t now_us() const { return network_.world().now_us(); }

  SimNetwork& network_;
  const SimSelf self_;
  const GatewayActorOptions options_;
  const Listener listener_;
  RequestOwner owner_;
  std::vector<Scheduler> schedulers_;
  std::map<std::string, Node> nodes_;                      // by endpoint
  std::unordered_map<SimProcess, std::string> endpoints_;  // of nodes_
  bool driving_ = false;
  std::deque<OwnerInput> pending_;
};

}  // namespace muselet
