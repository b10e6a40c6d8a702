// The scheduler's core: admission, the line in front of the replicas, the choice of a replica, and
// what to say when one is gone. Sees hashes, lengths and deadlines, never a prompt or a token.
//
// Sans-I/O: messages and ticks in, messages out; one owner, no locks, deterministic. All state is
// soft: nodes announce themselves and report, gateways ask again for what is open (also for
// requests that already run, under the same attempt: such a request is attached to the replica that
// holds it, not started again). Several schedulers over the same nodes share nothing: each sees in
// the reports what the others placed, and grants its part of the quotas.
//
// Invariants: a request is open at most once, under its latest attempt; it waits or holds exactly
// one ticket; a replica's credits are the sum of its tickets and of what it reports beside them.
// An attempt gets one kind of answer: after Ticket only Lost, after Refused or Lost nothing else;
// copies of its Place repeat that answer.
//
// The line: classes are strict, save that batch work gets 2 % of the tokens while it waits; inside
// a class shares decide (SurfaceLedger), inside a surface arrival. Too many wait: the worst class
// goes first. Only requests that never had a ticket are refused for load: an attempt after the
// first is a stream that had begun.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/messages.h"
#include "base/peer_session.h"
#include "base/status.h"
#include "scheduler/route/placement.h"
#include "scheduler/route/replica_table.h"
#include "scheduler/route/request_table.h"
#include "scheduler/route/route_counts.h"
#include "scheduler/route/route_options.h"
#include "scheduler/route/surface_ledger.h"
#include "scheduler/route/surface_options.h"

namespace muselet {

class Router {
 public:
  // `models`: ids that the config promises; a model that only a node announces is served as well.
  // `surfaces`: those that may ask; empty: whoever asks, with the default options.
  Router(std::string name, std::vector<std::string> models, const RouteOptions& options,
         const std::vector<SurfaceOptions>& surfaces = {});

  std::vector<Outgoing> OnMessage(const std::string& peer, const Envelope& envelope,
                                  int64_t now_us);
  // At least every heartbeat interval; deadlines are as exact as the ticks.
  std::vector<Outgoing> OnTick(int64_t now_us);
  // A Send to `peer` said kUnavailable, some time after its connection broke.
  std::vector<Outgoing> OnUnreachable(const std::string& peer, int64_t now_us);
  // Tells all peers that we leave on purpose.
  std::vector<Outgoing> Farewell();

  RouteCounts counts() const;
  // In the order of the config; of all that ever asked, if it names none.
  std::vector<SurfaceCounts> surface_counts() const;
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
  // router.cc: peers, models, drains
  void Handle(const std::string& peer, const Message& body);
  void HandlePeerStep(PeerTable::Step& step);
  void OnPeerEvent(const PeerTable::Event& event);
  void OnDrain(const std::string& operator_id, const Drain& drain);
  void DropGateway(const std::string& gateway);
  bool KnowsModel(const std::string& model) const;
  void RefreshModelTable();
  void AddEvent(RouteEvent event);
  void Send(const std::string& peer, Message message) {
    out_.push_back({peer, std::move(message)});
  }
  std::vector<Outgoing> Finish();

  // router_replicas.cc
  void OnReport(const std::string& node, const Report& report);
  void OnCacheEvents(const std::string& node, const CacheEvents& events);
  // `on_purpose`: what the node has no more, it took back in order.
  void SyncReplicas(const std::string& node, const std::vector<ReplicaInfo>& announced,
                    bool on_purpose);
  // Tells the gateways of its tickets; the replica stays in the table.
  void LoseTickets(Replica& replica, const std::string& reason, bool on_purpose = false);
  void LoseSilentReplicas();
  void CountServed(Replica& replica, const std::vector<SurfaceTokens>& served, bool first);
  void AttachReported(Replica& replica);
  void Judge(Replica& replica);
  bool MayEject(const Replica& replica) const;
  void NoteEjection(const Replica& replica, const std::string& why);
  void EndEjections();
  // The replica that holds this request without a ticket of ours, or null.
  Replica* HolderOf(const Place& place);

  // router_requests.cc: admission and the end
  void OnPlace(const std::string& gateway, const Place& place);
  void OnLaterAttempt(const std::string& gateway, const Place& place, OpenRequest& open);
  void OnRelease(const Release& release);
  struct Earlier {
    bool may_run = true;
    std::string failed;  // the replica of the attempt before
    Charge charge;
  };
  // Opens and places it, lets it wait, or refuses it.
  void Admit(const std::string& gateway, const Place& place, Earlier earlier);
  std::optional<Refusal> CheckAdmissible(const Place& place, const WorkOwner& owner,
                                         Charge& charge);
  std::optional<Refusal> CheckFits(const Place& place) const;
  void CheckLine(const RequestId& request);
  std::optional<Refusal> CheckWait(const OpenRequest& open);
  WorkOwner OwnerOf(const Place& place, SurfaceId surface) const;
  void Refuse(const std::string& gateway, const Place& place, std::optional<SurfaceId> surface,
              const Refusal& why);
  void RefuseOpen(const RequestId& request, const Refusal& why);
  void Settle(OpenRequest& open, const Release& release);
  void ExpireWaiting();
  std::optional<Refusal> Expired(const OpenRequest& open) const;
  void ExpireLeases();
  void FreeTicket(const OpenRequest& open);

  // router_dispatch.cc: the line
  // Something became free there, or may have: the line is tried again.
  void Dispatch(const std::string& model);
  void DispatchAll();
  void TryLine(const std::string& model);
  void TryReserved(const std::string& model);
  enum class Tried { kGone, kNoRoom, kNoRoomForIt };
  Tried TrySurface(const std::string& model, size_t class_index, SurfaceId surface);
  Tried Try(OpenRequest& open);
  std::vector<size_t> ClassOrder(const ModelLine& line) const;
  std::vector<SurfaceId> SurfaceOrder(const ModelLine& line, size_t class_index) const;
  void Assign(OpenRequest& open, Replica& replica, uint32_t cached_tokens);
  void CountFloor(const OpenRequest& open, const TicketCost& cost);
  void SendTicket(const OpenRequest& open);
  void FreeReservations();

  const std::string name_;
  const std::vector<std::string> configured_models_;
  const RouteOptions options_;
  PeerTable peers_;
  ReplicaTable replicas_;
  SurfaceLedger ledger_;
  RequestTable requests_;
  PlacementChooser chooser_;
  std::map<std::string, ModelSpeed> speeds_;  // by model
  ModelTable table_;
  bool table_dirty_ = true;
  std::map<std::string, int64_t, std::less<>> last_ready_us_;  // by model
  int64_t next_table_us_ = 0;
  int64_t last_tick_us_ = 0;
  RouteCounts counts_;
  std::vector<SurfaceCounts> surface_counts_;  // by SurfaceId
  std::vector<RouteEvent> events_;
  std::vector<int64_t> queue_times_us_;

  // Of the step under way.
  int64_t now_us_ = 0;
  std::vector<Outgoing> out_;
};

}  // namespace muselet
