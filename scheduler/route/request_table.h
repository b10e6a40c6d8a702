// The open requests of a scheduler, waiting and placed, and for a while the closed ones, so that a
// late copy of a message neither opens a request again nor changes its answer. Tells the ledger who
// waits and who runs. Part of the Router; sans-I/O, one owner.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/messages.h"
#include "scheduler/route/replica.h"
#include "scheduler/route/surface_ledger.h"

namespace muselet {

// Numbers of attempts: those of one gateway count from 0. A gateway that repeats a request which
// may run already, left over by another one, numbers it by its clock, far beyond.
inline constexpr uint32_t kCountedAttempts = 1000;
// Its stream had begun, as far as one can tell: it is not refused for load.
inline bool HadBegun(const Place& place) {
  return place.attempt > 0 && place.attempt <= kCountedAttempts;
}
inline bool IsRepeat(const Place& place) {
  return place.attempt > kCountedAttempts;
}

// What a request was charged against its surface's quotas; it is charged once, whatever becomes of
// its attempts.
struct Charge {
  bool made = false;
  uint32_t prompt_tokens = 0;
  uint64_t tokens = 0;  // the prompt's included
};

struct OpenRequest {
  Place place;
  WorkOwner owner;
  Charge charge;
  std::string gateway;  // connection of the gateway that asks
  int64_t arrived_us = 0;
  int64_t deadline_us = 0;  // 0 = none
  uint64_t arrival = 0;     // place in the line of its model, class and surface
  // No earlier attempt is known here: if a replica reports the request, that is this attempt,
  // placed before this scheduler started.
  bool may_run = true;

  std::string replica;  // holds the ticket; empty: waiting
  std::string failed;   // held the attempt before, which its gateway gave up; empty: none
  uint64_t epoch = 0;
  int64_t seen_us = 0;  // placed, or reported by its replica
  uint64_t placed_tokens = 0;
  bool served_unreported = false;

  bool placed() const { return !replica.empty(); }
  // `cached`: tokens of the prompt that its replica has.
  TicketCost cost(uint32_t cached) const;
};

// Those of one model that wait: by class, surface and arrival.
struct ModelLine {
  std::array<std::map<SurfaceId, std::map<uint64_t, RequestId>>, 3> classes;
  // Tokens placed since batch work began to wait: it is due some of them.
  double floor_all = 0;
  double floor_batch = 0;
  // Nobody found room when all were tried, and nothing became free since.
  bool stuck = false;

  bool empty() const { return classes[0].empty() && classes[1].empty() && classes[2].empty(); }
};

class RequestTable {
 public:
  explicit RequestTable(SurfaceLedger& ledger) : ledger_(ledger) {}

  OpenRequest* Find(const RequestId& request);
  // Enters it as waiting, at the end of its line. Must not be open.
  OpenRequest& Open(const std::string& gateway, const Place& place, const WorkOwner& owner,
                    int64_t now_us);
  // Waiting -> placed. The caller gives the ticket to the replica.
  void MarkPlaced(OpenRequest& open, const Replica& replica, uint32_t cached, int64_t now_us);
  // Forgets it. `answer`, what the gateway was told last, is repeated to late copies of its Place.
  void Close(const RequestId& request, std::optional<Message> answer, int64_t now_us);
  // Forgets it so that it may be opened again, also under the same attempt.
  void Drop(const RequestId& request, int64_t now_us);

  struct Closed {
    uint32_t attempt = 0;
    std::optional<Message> answer;
    int64_t closed_us = 0;
    std::string replica;  // held it last; empty: it waited
    Charge charge;
  };
  // How the request ended, if that was not long ago, or null.
  const Closed* FindClosed(const RequestId& request) const;
  // Of a request that is not open: it never was, or no more.
  void RememberClosed(const RequestId& request, uint32_t attempt, std::optional<Message> answer,
                      int64_t now_us);
  void ForgetClosedBefore(int64_t then_us);

  // Null if nobody waits for the model.
  ModelLine* Line(const std::string& model);
  std::vector<std::string> WaitingModels() const;
  // Who is given up first when too many wait: of the worst class, of the surface with the most for
  // its share, the last that came; never one whose stream had begun. Null if there is none.
  OpenRequest* Victim();
  size_t waiting_count() const { return waiting_count_; }
  size_t placed_count() const { return open_.size() - waiting_count_; }
  const std::unordered_map<RequestId, OpenRequest>& open() const { return open_; }

 private:
  void LeaveLine(const OpenRequest& open, int64_t now_us);

  SurfaceLedger& ledger_;
  std::unordered_map<RequestId, OpenRequest> open_;
  std::map<std::string, ModelLine> lines_;  // by model; no empty lines
  size_t waiting_count_ = 0;
  uint64_t arrivals_ = 0;
  std::unordered_map<RequestId, Closed> closed_;
  std::deque<std::pair<int64_t, RequestId>> closed_order_;
};

}  // namespace muselet
