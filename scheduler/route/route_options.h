// The knobs of a scheduler; keys, flags and documentation are in node/config/option_table.
#pragma once

#include <cstdint>

namespace muselet {

// How a replica is chosen among those that have room.
enum class PlacementPolicy : uint8_t {
  kPredicted,    // the least predicted time to the first token
  kRoundRobin,   // in turn
  kLeastLoaded,  // the fewest tokens for its size
  kSticky,       // by the hash of the prompt's beginning, the next one if that one is overloaded
};

struct RouteOptions {
  uint32_t waiting_max = 4096;              // requests that wait for a ticket; more are refused
  int64_t heartbeat_interval_us = 250'000;  // expected of every peer
  int64_t peer_timeout_us = 3'000'000;      // silence after which a peer is lost
  // A request for a model that has no ready replica waits so long for one.
  int64_t place_timeout_us = 30'000'000;
  // A ticket that no report of its replica mentions for so long is taken back.
  int64_t ticket_lease_us = 10'000'000;
  int64_t retry_after_us = 1'000'000;  // told to clients that are refused because the line is full

  PlacementPolicy policy = PlacementPolicy::kPredicted;
  // A replica that has prompts to compute for so long gets no more of that surface: the line is
  // here.
  int64_t replica_queue_us = 250'000;
  uint64_t prefix_blocks_max = 8'000'000;  // of all replicas, in the prefix index; 0 = no index
  // A replica that is slower than its peers by this factor is avoided, and ejected if it stays so;
  // 0 = never.
  double slow_factor = 3.0;
  int64_t eject_after_us = 5'000'000;  // of being slow
  int64_t eject_time_us = 30'000'000;  // then it is probed by one request; doubled each time
};

}  // namespace muselet
