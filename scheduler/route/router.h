// The scheduler's core: admission, the line in front of the replicas, the choice of a replica, and
// what to say when one is gone. Sees hashes, lengths and deadlines, never a prompt or a token.
//
// Sans-I/O: messages and ticks in, messages out; one owner, no locks, deterministic. All state is
// soft: nodes announce themselves and report, gateways ask again for what is open (also for
// requests that already run, under the same attempt: such a request is attached to the replica that
// holds it, not started again).
//
// Invariants: a request is open at most once, under its latest attempt; it waits or holds exactly
// one ticket; a replica's credits are the sum of its tickets and of what it reports beside them.
// An attempt gets one kind of answer: after Ticket only Lost, after Refused or Lost nothing else;
// copies of its Place repeat that answer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/messages.h"
#include "base/peer_session.h"
#include "base/status.h"
#include "scheduler/route/replica_table.h"
#include "scheduler/route/request_table.h"
#include "scheduler/route/route_options.h"
#include "scheduler/route/surface_options.h"

namespace muselet {

// What happened, for the log. Left: on purpose, with a Goodbye. Lost: without.
struct RouteEvent {
  enum class Kind {
    kNodeJoined,
    kNodeLeft,
    kNodeLost,
    kGatewayJoined,
    kGatewayLeft,
    kGatewayLost,
    kReplicaReady,
    kReplicaLeft,
    kReplicaLost,
  };
  Kind kind;
  std::string name;
  std::string detail;
  size_t attempts_lost = 0;  // kReplicaLeft, kReplicaLost
};

// Counted since the Router was made; gauges are of now.
struct RouteCounts {
  size_t waiting = 0;
  size_t placed = 0;
  size_t nodes = 0;
  size_t gateways = 0;
  uint64_t tickets = 0;
  uint64_t refusals = 0;
  uint64_t losses = 0;  // attempts
  uint64_t peers_left = 0;
  uint64_t peers_lost = 0;
};

class Router {
 public:
  // `models`: ids that the config promises; a model that only a node announces is served as well.
  // `surfaces`: those that may ask; empty: whoever asks, with the default options.
  Router(std::string name, std::vector<std::string> models, const RouteOptions& options,
         std::vector<SurfaceOptions> surfaces = {});

  std::vector<Outgoing> OnMessage(const std::string& peer, const Envelope& envelope,
                                  int64_t now_us);
  // At least every heartbeat interval; deadlines are as exact as the ticks.
  std::vector<Outgoing> OnTick(int64_t now_us);
  // A Send to `peer` said kUnavailable, some time after its connection broke.
  std::vector<Outgoing> OnUnreachable(const std::string& peer, int64_t now_us);
  // Tells all peers that we leave on purpose.
  std::vector<Outgoing> Farewell();

  RouteCounts counts() const;
  bool has_open_requests() const { return !requests_.open().empty(); }
  uint32_t ReplicasReady(std::string_view model) const;
  // Every known model, in the order of ids.
  const std::vector<ModelState>& models() const { return table_.models; }
  const PeerTable& peers() const { return peers_; }
  const ReplicaTable& replicas() const { return replicas_; }
  // Since the last call.
  std::vector<RouteEvent> TakeEvents();
  std::vector<int64_t> TakeQueueTimesUs();

 private:
  void Handle(const std::string& peer, const Message& body);
  void HandlePeerStep(PeerTable::Step& step);
  void OnPeerEvent(const PeerTable::Event& event);
  void OnPlace(const std::string& gateway, const Place& place);
  void OnRelease(const Release& release);
  void OnReport(const std::string& node, const Report& report);

  // Opens and places it, lets it wait, or refuses it.
  // `failed`: the replica of the attempt before.
  void Admit(const std::string& gateway, const Place& place, bool may_run, std::string failed = {});
  Status CheckAdmissible(const Place& place);
  Status CheckFits(const Place& place);
  void Dispatch(const std::string& model);
  void DispatchAll();
  void Assign(OpenRequest& open, Replica& replica);
  void SendTicket(const OpenRequest& open);
  void Refuse(const std::string& gateway, const Place& place, const Status& why);
  void RefuseOpen(const RequestId& request, const Status& why);
  void FreeTicket(const OpenRequest& open);
  // `on_purpose`: what the node has no more, it took back in order.
  void SyncReplicas(const std::string& node, const std::vector<ReplicaInfo>& announced,
                    bool on_purpose);
  // Tells the gateways of its tickets; the replica stays in the table.
  void LoseTickets(Replica& replica, const std::string& reason, bool on_purpose = false);
  void DropGateway(const std::string& gateway);
  // The replica that holds this request without a ticket of ours, or null.
  Replica* HolderOf(const Place& place);
  bool KnowsModel(const std::string& model) const;
  void ExpireWaiting();
  void ExpireLeases();
  void LoseSilentReplicas();
  void RefreshModelTable();
  void Send(const std::string& peer, Message message) {
    out_.push_back({peer, std::move(message)});
  }
  std::vector<Outgoing> Finish();

  const std::string name_;
  const std::vector<std::string> configured_models_;
  const RouteOptions options_;
  const std::vector<SurfaceOptions> surfaces_;
  PeerTable peers_;
  ReplicaTable replicas_;
  RequestTable requests_;
  ModelTable table_;
  bool table_dirty_ = true;
  std::map<std::string, int64_t, std::less<>> last_ready_us_;  // by model
  int64_t next_table_us_ = 0;
  int64_t last_tick_us_ = 0;
  RouteCounts counts_;
  std::vector<RouteEvent> events_;
  std::vector<int64_t> queue_times_us_;

  // Of the step under way.
  int64_t now_us_ = 0;
  std::vector<Outgoing> out_;
};

}  // namespace muselet
