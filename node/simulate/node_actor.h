// A node with one replica in a simulated cluster: the real NodeAdmission and Batcher, driven as
// node/engine/replica_server drives them, over steps on virtual time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/peer_session.h"
#include "node/engine/cache_feed.h"
#include "node/engine/node_admission.h"
#include "scheduler/sim/sim_network.h"
#include "scheduler/sim/sim_replica.h"

namespace muselet {

struct NodeActorOptions {
  std::string node;
  std::string replica;
  std::string model;
  std::string endpoint;                 // of this node
  std::vector<std::string> schedulers;  // endpoints
  PeerTiming timing;                    // its heartbeat interval is that of reports
  int64_t idle_report_us = 250'000;
  SimReplicaOptions engine;
};

class NodeActor final : public SimActor {
 public:
  NodeActor(SimNetwork& network, const SimSelf& self, const NodeActorOptions& options);

  void Start() override;
  void OnMessage(const std::string& peer, Envelope envelope) override;
  void OnDisconnect(SimProcess peer) override;

  // Takes nothing new; what runs is finished.
  void Drain();
  bool drained() const { return admission_.draining() && admission_.sequence_count() == 0; }
  // Leaves on purpose; the process may crash now.
  void SayGoodbye();

  SimReplica& replica() { return replica_; }
  const NodeAdmission& admission() const { return admission_; }

 private:
  struct Link {
    std::string endpoint;
    SimProcess process = 0;
    ClientSession session;
    bool cache_told = false;  // since it joined
  };
  Hello MakeHello() const;
  void Deliver(NodeAdmissionOutput output);
  void OnUpdates(std::vector<TokenUpdate> updates);
  void Tick();
  void SendReports();
  void SendCacheEvents();
  Report MakeReport();
  // False: it was not taken.
  bool Send(Link& link, Message message);
  void Apply(Link& link, ClientSession::Step step);
  int64_t now_us() const { return network_.world().now_us(); }

  SimNetwork& network_;
  const SimSelf self_;
  const NodeActorOptions options_;
  const std::string sender_;  // towards schedulers
  const uint64_t epoch_;
  NodeAdmission admission_;
  SimReplica replica_;
  CacheFeed cache_feed_;  // readers are parallel to links_
  std::vector<Link> links_;
  uint64_t report_sequence_ = 0;
  uint64_t reported_steps_ = 0;
  int64_t last_report_us_ = 0;
};

}  // namespace muselet
