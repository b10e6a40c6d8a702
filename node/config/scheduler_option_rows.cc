// Options of schedulers.
#include "node/config/option_rows.h"

namespace muselet {
namespace {

void AddScheduler(std::vector<Option>& rows) {
  const char* group = "Scheduler";
  AddOption(
      rows, group,
      {"scheduler.waiting_max", ValueKind::kInteger,
       "Requests that wait for a replica; more are refused", 1, 1000000},
      [](auto& c) -> auto& { return c.scheduler.waiting_max; });
  AddOption(
      rows, group,
      {"scheduler.heartbeat_interval", ValueKind::kDuration,
       "Time between two heartbeats that every peer is expected to keep", 10e3, 60e6},
      [](auto& c) -> auto& { return c.scheduler.heartbeat_interval_us; });
  AddOption(
      rows, group,
      {"scheduler.peer_timeout", ValueKind::kDuration, "Silence after which a peer counts as lost",
       100e3, 3600e6},
      [](auto& c) -> auto& { return c.scheduler.peer_timeout_us; });
  AddOption(
      rows, group,
      {"scheduler.place_timeout", ValueKind::kDuration,
       "Longest wait for a replica of a model that has none, when the request has no deadline",
       100e3, 3600e6},
      [](auto& c) -> auto& { return c.scheduler.place_timeout_us; });
  AddOption(
      rows, group,
      {"scheduler.ticket_lease", ValueKind::kDuration,
       "A place that no report of its replica mentions for this long is taken back", 1e6, 3600e6},
      [](auto& c) -> auto& { return c.scheduler.ticket_lease_us; });
  AddOption(
      rows, group,
      {"scheduler.retry_after", ValueKind::kDuration,
       "Wait told to clients that are refused because the line is full", 0, 3600e6},
      [](auto& c) -> auto& { return c.scheduler.retry_after_us; });
}

void AddPlacement(std::vector<Option>& rows) {
  const char* group = "Placement";
  AddOption(
      rows, group,
      {"scheduler.policy",
       ValueKind::kChoice,
       "How a replica is chosen: by the predicted time to the first token (queue, cached prefix, "
       "speed), in turn, by load, or by the prompt's beginning",
       0,
       0,
       {"predicted", "round_robin", "least_loaded", "sticky"}},
      [](auto& c) -> auto& { return c.scheduler.policy; });
  AddOption(
      rows, group,
      {"scheduler.replica_queue", ValueKind::kDuration,
       "A replica with prompts to compute for this long gets no more of that surface; the line is "
       "in the scheduler",
       1e3, 3600e6},
      [](auto& c) -> auto& { return c.scheduler.replica_queue_us; });
  AddOption(
      rows, group,
      {"scheduler.prefix_blocks_max", ValueKind::kInteger,
       "Cached blocks of all replicas that the scheduler knows of, 16 to 24 bytes each; 0 places "
       "without regard to cached prefixes",
       0, 1e9},
      [](auto& c) -> auto& { return c.scheduler.prefix_blocks_max; });
  AddOption(
      rows, group,
      {"scheduler.slow_factor", ValueKind::kNumber,
       "A replica slower than its peers by this factor is avoided, then ejected; 0 = never", 0,
       1000},
      [](auto& c) -> auto& { return c.scheduler.slow_factor; });
  AddOption(
      rows, group,
      {"scheduler.eject_after", ValueKind::kDuration,
       "How long a replica must have been slow to be ejected", 0, 3600e6},
      [](auto& c) -> auto& { return c.scheduler.eject_after_us; });
  AddOption(
      rows, group,
      {"scheduler.eject_time", ValueKind::kDuration,
       "How long an ejected replica gets nothing before it is probed by one request; doubled each "
       "time",
       100e3, 3600e6},
      [](auto& c) -> auto& { return c.scheduler.eject_time_us; });
}

}  // namespace

std::vector<Option> SchedulerOptionRows() {
  std::vector<Option> rows;
  AddScheduler(rows);
  AddPlacement(rows);
  return rows;
}

}  // namespace muselet
