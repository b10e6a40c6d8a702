// One replica as the scheduler knows it: who it is from Hello, how it is from its last report, what
// was placed on it. Part of the ReplicaTable; one owner.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/messages.h"
#include "scheduler/route/prefix_index.h"
#include "scheduler/route/replica_health.h"

namespace muselet {

// A surface as the scheduler numbers it (SurfaceLedger).
using SurfaceId = uint32_t;

// Whose work it is: nodes compute the better class first, and share between surfaces of one class
// by weight.
struct WorkOwner {
  RequestClass request_class = RequestClass::kInteractive;
  SurfaceId surface = 0;
  double share = 1.0;
};

// A request as load on a replica.
struct TicketCost {
  uint32_t sequences = 1;
  uint64_t tokens = 0;   // prompt, and all that it may generate
  uint32_t prefill = 0;  // of the prompt, what the replica had not cached when it was chosen
  WorkOwner owner;
};

struct Replica {
  ReplicaInfo info;
  std::string node;  // connection of the node that leads it

  // From its reports; `reported` false: none of this epoch yet, or silent for too long.
  bool reported = false;
  bool draining = false;
  uint64_t report_sequence = 0;
  int64_t last_report_us = 0;
  uint64_t steps = 0;
  int64_t step_us = 0;
  double prefill_token_us = 0;             // 0 = not known
  std::optional<uint64_t> kv_free_tokens;  // none: not known
  uint32_t schedulers = 1;
  std::unordered_map<RequestId, uint32_t> active;  // sequences it holds, by request
  std::map<std::string, uint64_t, std::less<>> served;
  bool nonsense = false;  // its last report made no sense

  // What this scheduler sent there.
  std::map<RequestId, TicketCost> tickets;
  uint64_t ticket_sequences = 0;
  uint64_t ticket_tokens = 0;
  std::array<uint64_t, 3> class_sequences{};  // of the tickets
  // Sequences that it holds without a ticket of ours: they run since before we started, or by
  // another scheduler's ticket.
  uint32_t foreign_sequences = 0;
  uint64_t foreign_prefill = 0;
  // Of our tickets, oldest first: prompts that are not all computed yet, as far as one can tell.
  struct PendingPrefill {
    RequestId request;
    uint64_t tokens = 0;
    bool reported = false;  // the last report knew of it
    WorkOwner owner;
  };
  std::vector<PendingPrefill> pending;
  uint64_t pending_tokens = 0;   // their sum
  bool pending_of_many = false;  // they are of several owners
  WorkOwner pending_owner;       // else of this one

  // A suspect that holds it alone, or waits until it is empty.
  std::optional<RequestId> alone;
  std::optional<RequestId> reserved_for;

  PlacementHealth health;
  PrefixIndex::Holder holder = PrefixIndex::kNoHolder;
  // Of its cache events. Not in step: a gap was found, or none came yet; only a snapshot helps.
  bool cache_in_step = false;
  bool cache_restarts = true;  // the next snapshot counts, whatever its number
  uint64_t cache_sequence = 0;
  int64_t cache_asked_us = 0;

  bool ready() const { return reported && !draining; }
  uint64_t held() const { return ticket_sequences + foreign_sequences; }
  // Those that a request of this class does not go before.
  uint64_t HeldFor(RequestClass request_class) const;
  bool Fits(uint32_t prompt_tokens) const;
  // Held sequences may exceed what runs at once by a little, so that a slot that becomes free is
  // filled without a round trip. Work of worse classes gives way and does not count, up to as much
  // again. An idle replica takes any request.
  bool HasCredit(uint32_t sequences, RequestClass request_class) const;
  // Room in the KV cache for one more prompt, as far as one can tell.
  bool HasMemory(uint32_t prompt_tokens) const;
  uint64_t LoadTokens() const;
  // Prompt tokens that are computed before `own_tokens` of this owner are, when they come next.
  double QueueAhead(const WorkOwner& owner, uint64_t own_tokens) const;

  void AddTicket(const RequestId& request, const TicketCost& cost);
  void RemoveTicket(const RequestId& request);
  // Forgets and returns all of them.
  std::map<RequestId, TicketCost> TakeTickets();
  // Takes the report's content; its order and sense were checked.
  void Take(const Report& report, int64_t now_us);

 private:
  void CountForeign();
  void TakePrefill(uint64_t tokens);
  void SumPending();
};

}  // namespace muselet
