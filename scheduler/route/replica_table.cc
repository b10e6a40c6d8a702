#include "scheduler/route/replica_table.h"

#include <algorithm>

namespace muselet {
namespace {

// What a sequence that we know nothing about counts for.
constexpr uint64_t kForeignSequenceTokens = 512;

// a.load / a.size < b.load / b.size
bool LessLoaded(const Replica& a, const Replica& b) {
  const auto size = [](const Replica& r) { return std::max<uint64_t>(r.info.sequences_max, 1); };
  return a.LoadTokens() * size(b) < b.LoadTokens() * size(a);
}

}  // namespace

bool Replica::Fits(uint32_t prompt_tokens) const {
  return info.context_tokens == 0 || prompt_tokens < info.context_tokens;
}

bool Replica::HasCredit(uint32_t sequences) const {
  const uint64_t held = ticket_sequences + foreign_sequences;
  const uint64_t slots = std::max<uint64_t>(info.sequences_max, 1);
  return held == 0 || held + sequences <= slots + (slots + 3) / 4;
}

uint64_t Replica::LoadTokens() const {
  return ticket_tokens + foreign_sequences * kForeignSequenceTokens;
}

void Replica::AddTicket(const RequestId& request, const TicketCost& cost) {
  RemoveTicket(request);
  tickets[request] = cost;
  ticket_sequences += cost.sequences;
  ticket_tokens += cost.tokens;
  CountForeign();
}

void Replica::RemoveTicket(const RequestId& request) {
  const auto found = tickets.find(request);
  if (found == tickets.end()) return;
  ticket_sequences -= found->second.sequences;
  ticket_tokens -= found->second.tokens;
  tickets.erase(found);
  // What the last report said of it is over; the next one tells whether something of it still runs.
  active.erase(request);
}

void Replica::CountForeign() {
  foreign_sequences = 0;
  for (const auto& [request, sequences] : active)
    if (!tickets.contains(request)) foreign_sequences += sequences;
}

Replica* ChooseReplica(const std::vector<Replica*>& replicas, const Place& place,
                       std::string_view failed) {
  const uint32_t sequences = std::max(place.choices, 1U);
  const auto suits = [&](const Replica* replica) {
    return replica->ready() && replica->Fits(place.prompt_tokens);
  };
  const bool has_other = std::any_of(replicas.begin(), replicas.end(), [&](const Replica* replica) {
    return suits(replica) && replica->info.replica != failed;
  });
  Replica* best = nullptr;
  for (Replica* replica : replicas) {
    if (!suits(replica) || !replica->HasCredit(sequences)) continue;
    if (has_other && replica->info.replica == failed) continue;
    if (best == nullptr || LessLoaded(*replica, *best)) best = replica;
  }
  return best;
}

std::vector<std::string> ReplicaTable::Withdrawn(const std::string& node,
                                                 const std::vector<ReplicaInfo>& announced) const {
  std::vector<std::string> gone;
  for (const auto& [name, replica] : replicas_) {
    const auto same = std::find_if(announced.begin(), announced.end(),
                                   [&](const ReplicaInfo& a) { return a.replica == name; });
    const bool here = replica.node == node;
    if (here && (same == announced.end() || same->epoch != replica.info.epoch)) {
      gone.push_back(name);
    } else if (!here && same != announced.end() && same->epoch > replica.info.epoch) {
      gone.push_back(name);
    }
  }
  return gone;
}

void ReplicaTable::Announce(const std::string& node, const std::vector<ReplicaInfo>& announced) {
  for (const ReplicaInfo& info : announced) {
    const auto found = replicas_.find(info.replica);
    if (found != replicas_.end() && found->second.node != node) continue;
    Replica& replica = replicas_[info.replica];
    replica.node = node;
    replica.info = info;
  }
}

void ReplicaTable::Remove(const std::string& replica) {
  replicas_.erase(replica);
}

ReplicaTable::ReportResult ReplicaTable::TakeReport(const std::string& node, const Report& report,
                                                    int64_t now_us) {
  const auto found = replicas_.find(report.replica);
  if (found == replicas_.end()) return ReportResult::kUnknown;
  Replica& replica = found->second;
  if (replica.node != node || report.epoch < replica.info.epoch) return ReportResult::kStale;
  if (report.epoch > replica.info.epoch) return ReportResult::kUnknown;
  if (replica.report_sequence != 0 && report.sequence <= replica.report_sequence)
    return ReportResult::kStale;
  replica.reported = true;
  replica.draining = report.draining;
  replica.report_sequence = report.sequence;
  replica.last_report_us = now_us;
  replica.active.clear();
  for (const SequenceId& sequence : report.active) ++replica.active[sequence.request];
  replica.CountForeign();
  return ReportResult::kTaken;
}

Replica* ReplicaTable::Find(const std::string& name) {
  const auto found = replicas_.find(name);
  return found == replicas_.end() ? nullptr : &found->second;
}

std::vector<Replica*> ReplicaTable::OfModel(std::string_view model) {
  std::vector<Replica*> list;
  for (auto& [name, replica] : replicas_)
    if (replica.info.model == model) list.push_back(&replica);
  return list;
}

std::vector<std::string> ReplicaTable::OfNode(const std::string& node) const {
  std::vector<std::string> list;
  for (const auto& [name, replica] : replicas_)
    if (replica.node == node) list.push_back(name);
  return list;
}

void ReplicaTable::CountSilenceFrom(int64_t now_us) {
  for (auto& [name, replica] : replicas_) replica.last_report_us = now_us;
}

std::vector<std::string> ReplicaTable::SilentSince(int64_t since_us) const {
  std::vector<std::string> list;
  for (const auto& [name, replica] : replicas_)
    if (replica.reported && replica.last_report_us < since_us) list.push_back(name);
  return list;
}

}  // namespace muselet
