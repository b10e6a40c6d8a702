// Options of every process.
#include "node/config/option_rows.h"

namespace muselet {
namespace {

// The path of a key file; empty is none.
template <typename Access>
void AddKeyFile(std::vector<Option>& rows, const char* key, const char* meaning, Access access) {
  FieldSpec spec{key, ValueKind::kPath, meaning};
  spec.may_be_empty = true;
  AddOption(rows, "Process", std::move(spec), access);
}

void AddProcess(std::vector<Option>& rows) {
  const char* group = "Process";
  AddOption(
      rows, group, {"cluster", ValueKind::kName, "Name of the cluster, shown in logs and metrics"},
      [](auto& c) -> auto& { return c.cluster; });
  AddOption(
      rows, group,
      {"insecure", ValueKind::kBool,
       "Allow plain, unauthenticated traffic on addresses other than loopback"},
      [](auto& c) -> auto& { return c.insecure; });
  AddKeyFile(
      rows, "security.key_file",
      "Secret key of this process's wires, a file of muselet keys generate: tcp:// off "
      "loopback is encrypted, and none but known keys are admitted",
      [](auto& c) -> auto& { return c.security.key_file; });
  AddKeyFile(
      rows, "security.known_keys_file",
      "Public keys of more processes to admit, one a line, beside those of the entries",
      [](auto& c) -> auto& { return c.security.known_keys_file; });
  AddKeyFile(
      rows, "security.front_end_keys_file",
      "Public keys that the gateways' rpc admits too, one a line",
      [](auto& c) -> auto& { return c.security.front_end_keys_file; });
  AddKeyFile(
      rows, "security.secret_file",
      "Secret of all gateways, a file of muselet keys secret: with it any of them resumes the "
      "streams of another and gives the same answer to a repeated Idempotency-Key; without it "
      "these work only while the gateway lives",
      [](auto& c) -> auto& { return c.security.secret_file; });
  AddOption(
      rows, group,
      {"drain_timeout", ValueKind::kDuration,
       "After SIGTERM: how long requests that run may take to end", 0, 3'600'000'000},
      [](auto& c) -> auto& { return c.drain_timeout_us; });
  AddOption(
      rows, group,
      {"log.level",
       ValueKind::kChoice,
       "Least severe event that is logged",
       0,
       0,
       {"debug", "info", "warn", "error"}},
      [](auto& c) -> auto& { return c.log_level; });
  AddOption(
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
