// Replicas: what they report, what they cached, how healthy they are, and their end.
#include <algorithm>
#include <utility>

#include "scheduler/route/router.h"

namespace muselet {

void Router::SyncReplicas(const std::string& node, const std::vector<ReplicaInfo>& announced,
                          bool on_purpose) {
  for (const std::string& name : replicas_.Withdrawn(node, announced)) {
    const std::string reason = on_purpose ? " left in order" : " is gone or was formed anew";
    LoseTickets(*replicas_.Find(name), "replica " + name + reason, on_purpose);
    replicas_.Remove(name);
  }
  replicas_.Announce(node, announced);
  table_dirty_ = true;
}

void Router::LoseTickets(Replica& replica, const std::string& reason, bool on_purpose) {
  const auto tickets = replica.TakeTickets();
  for (const auto& [request, cost] : tickets) {
    const OpenRequest& open = *requests_.Find(request);
    const Lost lost{request, open.place.attempt, reason, false};
    Send(open.gateway, lost);
    requests_.Close(request, lost, now_us_);
  }
  counts_.losses += tickets.size();
  if (replica.reported) {
    const auto kind = on_purpose ? RouteEvent::Kind::kReplicaLeft : RouteEvent::Kind::kReplicaLost;
    AddEvent({kind, replica.info.replica, reason, tickets.size()});
  }
  replica.reported = false;
  table_dirty_ = true;
}

void Router::LoseSilentReplicas() {
  for (const std::string& name : replicas_.SilentSince(now_us_ - options_.peer_timeout_us))
    LoseTickets(*replicas_.Find(name), "replica " + name + " stopped reporting");
}

void Router::OnReport(const std::string& node, const Report& report) {
  Replica* before = replicas_.Find(report.replica);
  const bool was_ready = before != nullptr && before->ready();
  const bool was_reported = before != nullptr && before->reported;
  switch (replicas_.TakeReport(node, report, now_us_)) {
    case ReplicaTable::TakeResult::kStale:
      return;
    case ReplicaTable::TakeResult::kUnknown:
      return Send(node, Unknown{});
    case ReplicaTable::TakeResult::kNonsense:
      ++counts_.nonsense_reports;
      if (!std::exchange(before->nonsense, true))
        AddEvent({RouteEvent::Kind::kNonsense, report.replica, NonsenseIn(report, before->info)});
      return;
    case ReplicaTable::TakeResult::kTaken:
      break;
  }
  Replica& replica = *replicas_.Find(report.replica);
  table_dirty_ = table_dirty_ || replica.ready() != was_ready;
  if (!was_reported)
    AddEvent({RouteEvent::Kind::kReplicaReady, report.replica, replica.info.model});
  speeds_[replica.info.model].Learn(replica);
  CountServed(replica, report.served, !was_reported);
  Judge(replica);
  AttachReported(replica);
  if (replica.ready()) Dispatch(replica.info.model);
}

// What it served before its first report here is no debt of ours.
void Router::CountServed(Replica& replica, const std::vector<SurfaceTokens>& served, bool first) {
  for (const SurfaceTokens& surface : served) {
    const auto [known, added] = replica.served.try_emplace(surface.surface, 0);
    const uint64_t before = std::exchange(known->second, surface.tokens);
    if (first || surface.tokens <= before) continue;
    if (const auto id = ledger_.Find(surface.surface))
      ledger_.CountServed(*id, surface.tokens - before);
  }
}

void Router::AttachReported(Replica& replica) {
  for (const auto& [request, sequences] : replica.active) {
    OpenRequest* open = requests_.Find(request);
    if (open == nullptr || open->place.model != replica.info.model) continue;
    // The node knows best where a request runs.
    const Replica* holder = open->placed() ? replicas_.Find(open->replica) : nullptr;
    const bool elsewhere = holder != nullptr && holder->active.contains(request);
    if (open->may_run && open->replica != replica.info.replica && !elsewhere)
      Assign(*open, replica, 0);
    if (open->replica == replica.info.replica) open->seen_us = now_us_;
  }
}

void Router::OnCacheEvents(const std::string& node, const CacheEvents& events) {
  if (replicas_.TakeCacheEvents(node, events, now_us_) != ReplicaTable::TakeResult::kUnknown)
    return;
  ++counts_.cache_gaps;
  Send(node, Unknown{});
}

// --- health ---

bool Router::MayEject(const Replica& replica) const {
  size_t ready = 0;
  size_t ejected = 0;
  for (const Replica* peer : replicas_.OfModel(replica.info.model)) {
    if (!peer->ready()) continue;
    ++ready;
    if (!peer->health.usable()) ++ejected;
  }
  return 2 * (ejected + 1) <= ready;
}

void Router::NoteEjection(const Replica& replica, const std::string& why) {
  ++counts_.ejections;
  AddEvent({RouteEvent::Kind::kReplicaEjected, replica.info.replica, why});
}

// Peers compute the same in the same way: replicas of other numerics may be of other devices.
void Router::Judge(Replica& replica) {
  if (options_.slow_factor <= 0) return;
  std::vector<double> peers;
  for (const Replica* peer : replicas_.OfModel(replica.info.model)) {
    if (peer == &replica || !peer->ready() || peer->prefill_token_us <= 0) continue;
    if (peer->info.numerics_id == replica.info.numerics_id) peers.push_back(peer->prefill_token_us);
  }
  const ReplicaSpeed speed{replica.prefill_token_us, MedianOf(std::move(peers)), replica.steps};
  if (JudgeSpeed(replica.health, speed, MayEject(replica), options_, now_us_)) {
    NoteEjection(replica, std::to_string(speed.cost_us) + " us a prompt token, its peers " +
                              std::to_string(speed.peers_us));
  }
}

void Router::EndEjections() {
  for (auto& [name, replica] : replicas_.all()) EndEjection(replica.health, replica.steps, now_us_);
}

Replica* Router::HolderOf(const Place& place) {
  for (Replica* replica : replicas_.OfModel(place.model)) {
    if (replica->foreign_sequences > 0 && replica->reported &&
        replica->active.contains(place.request) && !replica->tickets.contains(place.request))
      return replica;
  }
  return nullptr;
}

}  // namespace muselet
