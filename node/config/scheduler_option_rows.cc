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

}  // namespace

std::vector<Option> SchedulerOptionRows() {
  std::vector<Option> rows;
  AddScheduler(rows);
  return rows;
}

}  // namespace muselet
