// Whether a replica is worth placing on: one that is much slower than its peers is avoided, then
// ejected for a while, then probed by one request at a time. Also ejected: one on which attempt
// after attempt is given up. Part of the Router; sans-I/O, one owner.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/route/route_options.h"

namespace muselet {

enum class HealthState : uint8_t {
  kHealthy,
  kAvoided,  // taken only where no healthy one has room
  kEjected,  // taken only where there is no other at all
  kProbing,  // takes one request at a time, until it has shown how fast it is
};

struct PlacementHealth {
  HealthState state = HealthState::kHealthy;
  int64_t since_us = 0;  // of the state
  int64_t eject_time_us = 0;
  uint64_t probed_steps = 0;  // its steps when the probe began
  uint32_t failures = 0;      // score: attempts given up there weigh more than those that ended
  int64_t failed_us = 0;      // the last one; those of one moment are one
  bool slow_once = false;     // one bad report is no verdict

  bool usable() const { return state != HealthState::kEjected; }
};

// What its last report says of its speed, and the middle one of its peers; 0 = not known.
struct ReplicaSpeed {
  double cost_us = 0;
  double peers_us = 0;
  uint64_t steps = 0;
};

// Takes a report into account. `may_eject`: enough others are left. True if it became ejected.
bool JudgeSpeed(PlacementHealth& health, const ReplicaSpeed& speed, bool may_eject,
                const RouteOptions& options, int64_t now_us);
// An attempt there was given up by its gateway while the replica lived. True if it became ejected.
bool CountFailure(PlacementHealth& health, bool may_eject, const RouteOptions& options,
                  int64_t now_us);
// One ended, well or not: what ended badly is counted as a failure beside.
void CountEnd(PlacementHealth& health);
// Ejected for long enough: probes it.
void EndEjection(PlacementHealth& health, uint64_t steps, int64_t now_us);

// The middle value; 0 if there is none.
double MedianOf(std::vector<double> values);

}  // namespace muselet
