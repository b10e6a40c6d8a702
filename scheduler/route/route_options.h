// The knobs of a scheduler; keys, flags and documentation are in node/config/option_table.
#pragma once

#include <cstdint>

namespace muselet {

struct RouteOptions {
  uint32_t waiting_max = 4096;              // requests that wait for a ticket; more are refused
  int64_t heartbeat_interval_us = 250'000;  // expected of every peer
  int64_t peer_timeout_us = 3'000'000;      // silence after which a peer is lost
  // A request for a model that has no ready replica waits so long for one.
  int64_t place_timeout_us = 30'000'000;
  // A ticket that no report of its replica mentions for so long is taken back.
  int64_t ticket_lease_us = 10'000'000;
  int64_t retry_after_us = 1'000'000;  // told to clients that are refused because the line is full
};

}  // namespace muselet
