// The replicas of the cluster as their nodes describe them: who they are from Hello, how they are
// from Report. Soft state: a restarted scheduler has all of it again after one report of each. Part
// of the Router; sans-I/O, one owner.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/messages.h"

namespace muselet {

// A request as load on a replica.
struct TicketCost {
  uint32_t sequences = 1;
  uint64_t tokens = 0;  // prompt, and all that it may generate
};

struct Replica {
  ReplicaInfo info;
  std::string node;  // connection of the node that leads it

  // From its reports; `reported` false: none of this epoch yet, or silent for too long.
  bool reported = false;
  bool draining = false;
  uint64_t report_sequence = 0;
  int64_t last_report_us = 0;
  std::unordered_map<RequestId, uint32_t> active;  // sequences it holds, by request

  // What this scheduler sent there.
  std::map<RequestId, TicketCost> tickets;
  uint64_t ticket_sequences = 0;
  uint64_t ticket_tokens = 0;
  // Sequences that it holds without a ticket of ours: they run since before we started, or by
  // another scheduler's ticket.
  uint32_t foreign_sequences = 0;

  bool ready() const { return reported && !draining; }
  bool Fits(uint32_t prompt_tokens) const;
  // Held sequences may exceed what runs at once by a little, so that a slot that becomes free is
  // filled without a round trip. An idle replica takes any request.
  bool HasCredit(uint32_t sequences) const;
  uint64_t LoadTokens() const;

  void AddTicket(const RequestId& request, const TicketCost& cost);
  void RemoveTicket(const RequestId& request);

 private:
  void CountForeign();
  friend class ReplicaTable;
};

// Which of the ready replicas with credit takes a request: the least loaded for its size, ties by
// name; null if there is none. The replica called `failed` is taken only where no other could ever
// be: a gateway often knows of a death before the scheduler does. The block hashes of `place` are
// the seam for prefix affinity.
Replica* ChooseReplica(const std::vector<Replica*>& replicas, const Place& place,
                       std::string_view failed = "");

class ReplicaTable {
 public:
  // Makes the replicas of node `node` those of `announced`. Returns the names of those that are
  // gone, still in the table: withdrawn, or formed anew under another epoch. The caller settles
  // their tickets, calls Remove for each, and then calls Announce again.
  std::vector<std::string> Withdrawn(const std::string& node,
                                     const std::vector<ReplicaInfo>& announced) const;
  // A name that another living node leads under the same or a later epoch is left to it.
  void Announce(const std::string& node, const std::vector<ReplicaInfo>& announced);
  void Remove(const std::string& replica);

  enum class ReportResult {
    kTaken,
    kStale,    // an older sequence or epoch, or not from its node: nothing changed
    kUnknown,  // no such replica, or a newer epoch than announced: the node must say Hello again
  };
  ReportResult TakeReport(const std::string& node, const Report& report, int64_t now_us);

  Replica* Find(const std::string& name);
  // In the order of names.
  std::vector<Replica*> OfModel(std::string_view model);
  std::vector<std::string> OfNode(const std::string& node) const;
  // Reported once, and silent since before `since_us`.
  std::vector<std::string> SilentSince(int64_t since_us) const;
  // We were stuck: their reports may lie unread.
  void CountSilenceFrom(int64_t now_us);
  const std::map<std::string, Replica>& all() const { return replicas_; }

 private:
  std::map<std::string, Replica> replicas_;
};

}  // namespace muselet
