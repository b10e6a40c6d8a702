// Options of every process.
#include <utility>

#include "node/config/option_table.h"

namespace muselet {
namespace {

template <typename Access>
void Add(std::vector<Option>& rows, const char* group, FieldSpec spec, Access access) {
  rows.push_back({MakeField<ClusterConfig>(std::move(spec), access), group});
}

void AddProcess(std::vector<Option>& rows) {
  const char* group = "Process";
  Add(
      rows, group, {"cluster", ValueKind::kName, "Name of the cluster, shown in logs and metrics"},
      [](auto& c) -> auto& { return c.cluster; });
  Add(
      rows, group,
      {"insecure", ValueKind::kBool,
       "Allow plain, unauthenticated traffic on addresses other than loopback"},
      [](auto& c) -> auto& { return c.insecure; });
  Add(
      rows, group,
      {"drain_timeout", ValueKind::kDuration,
       "After SIGTERM: how long requests that run may take to end", 0, 3'600'000'000},
      [](auto& c) -> auto& { return c.drain_timeout_us; });
  Add(
      rows, group,
      {"log.level",
       ValueKind::kChoice,
       "Least severe event that is logged",
       0,
       0,
       {"debug", "info", "warn", "error"}},
      [](auto& c) -> auto& { return c.log_level; });
  Add(
      rows, group,
      {"log.format",
       ValueKind::kChoice,
       "Lines for people or JSON objects; auto is text on a terminal, JSON elsewhere",
       0,
       0,
       {"auto", "text", "json"}},
      [](auto& c) -> auto& { return c.log_format; });
}

}  // namespace

std::vector<Option> ProcessOptions() {
  std::vector<Option> rows;
  AddProcess(rows);
  return rows;
}

}  // namespace muselet
