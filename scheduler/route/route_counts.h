// What a Router says about itself: events for the log, counts for the metrics. Plain values.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/status.h"

namespace muselet {

// What happened, for the log. Left: on purpose, with a Goodbye. Lost: without.
struct RouteEvent {
  enum class Kind {
    kNodeJoined,
    kNodeLeft,
    kNodeLost,
    kGatewayJoined,
    kGatewayLeft,
    kGatewayLost,
    kReplicaReady,
    kReplicaLeft,
    kReplicaLost,
    kReplicaEjected,
    kNonsense,  // a report that cannot be true; said once until a good one comes
    kDrainAsked,
  };
  Kind kind;
  std::string name;
  std::string detail;
  size_t attempts_lost = 0;  // kReplicaLeft, kReplicaLost
};

// In the order of the names in SchedulerMetrics.
enum class RefusalReason : uint8_t {
  kSurface,   // no such surface
  kModel,     // no such model
  kTooLong,   // no replica's context takes the prompt
  kQuota,     // its surface has used its requests or tokens of the minute
  kLine,      // too many wait
  kOverload,  // it would wait longer than its surface's objective, or did
  kDeadline,  // its time is over, or would be before the first token
  kReplica,   // no replica of the model is ready
};
inline constexpr size_t kRefusalReasons = 8;

struct Refusal {
  RefusalReason reason = RefusalReason::kLine;
  Status status;
  int64_t retry_after_us = 0;  // 0 = do not, or the default of the options
};

// Counted since the Router was made; gauges are of now.
struct RouteCounts {
  size_t waiting = 0;
  size_t placed = 0;
  size_t nodes = 0;
  size_t gateways = 0;
  uint64_t tickets = 0;
  uint64_t refusals = 0;
  uint64_t losses = 0;  // attempts
  uint64_t peers_left = 0;
  uint64_t peers_lost = 0;
  uint64_t prompt_tokens = 0;         // of requests that got a ticket
  uint64_t cached_prompt_tokens = 0;  // of them, what their replica was known to have cached
  uint64_t unknown_surfaces = 0;      // refusals that no surface is to be charged with
  uint64_t ejections = 0;
  uint64_t nonsense_reports = 0;
  uint64_t cache_gaps = 0;  // snapshots asked for
  uint64_t prefix_blocks = 0;
  uint64_t prefix_bytes = 0;
};

struct SurfaceCounts {
  std::string surface;
  std::array<uint64_t, 3> waiting{};  // by class
  std::array<uint64_t, kRefusalReasons> refusals{};
};

}  // namespace muselet
