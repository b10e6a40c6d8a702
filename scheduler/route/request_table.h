// The open requests of a scheduler, waiting and placed, and for a while the closed ones, so that a
// late copy of a message neither opens a request again nor changes its answer. Part of the Router;
// sans-I/O, one owner.
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
#include "scheduler/route/replica_table.h"

namespace muselet {

struct OpenRequest {
  Place place;
  std::string gateway;  // connection of the gateway that asks
  int64_t arrived_us = 0;
  int64_t deadline_us = 0;  // 0 = none
  uint64_t arrival = 0;     // place in the line of its model and class
  // No earlier attempt is known here: if a replica reports the request, that is this attempt,
  // placed before this scheduler started.
  bool may_run = true;

  std::string replica;  // holds the ticket; empty: waiting
  std::string failed;   // held the attempt before, which its gateway gave up; empty: none
  uint64_t epoch = 0;
  int64_t seen_us = 0;  // placed, asked for again, or reported by its replica

  bool placed() const { return !replica.empty(); }
  TicketCost cost() const;
};

class RequestTable {
 public:
  OpenRequest* Find(const RequestId& request);
  // Enters it as waiting, at the end of its line. Must not be open.
  OpenRequest& Open(const std::string& gateway, const Place& place, int64_t now_us);
  // Waiting -> placed. The caller gives the ticket to the replica.
  void MarkPlaced(OpenRequest& open, const Replica& replica, int64_t now_us);
  // Forgets it. `answer`, what the gateway was told last, is repeated to late copies of its Place.
  void Close(const RequestId& request, std::optional<Message> answer, int64_t now_us);
  // Forgets it so that it may be opened again, also under the same attempt.
  void Drop(const RequestId& request);

  struct Closed {
    uint32_t attempt = 0;
    std::optional<Message> answer;
    int64_t closed_us = 0;
    std::string replica;  // held it last; empty: it waited
  };
  // How the request ended, if that was not long ago, or null.
  const Closed* FindClosed(const RequestId& request) const;
  // Of a request that is not open: it never was, or no more.
  void RememberClosed(const RequestId& request, uint32_t attempt, std::optional<Message> answer,
                      int64_t now_us);
  void ForgetClosedBefore(int64_t then_us);

  // The next of a model's line: by class, then by arrival; null if nobody waits.
  OpenRequest* FirstWaiting(const std::string& model);
  std::vector<std::string> WaitingModels() const;
  size_t waiting_count() const { return waiting_count_; }
  size_t placed_count() const { return open_.size() - waiting_count_; }
  const std::unordered_map<RequestId, OpenRequest>& open() const { return open_; }

 private:
  using LineKey = std::pair<RequestClass, uint64_t>;

  void LeaveLine(const OpenRequest& open);

  std::unordered_map<RequestId, OpenRequest> open_;
  std::map<std::string, std::map<LineKey, RequestId>> lines_;  // by model; no empty lines
  size_t waiting_count_ = 0;
  uint64_t arrivals_ = 0;
  std::unordered_map<RequestId, Closed> closed_;
  std::deque<std::pair<int64_t, RequestId>> closed_order_;
};

}  // namespace muselet
