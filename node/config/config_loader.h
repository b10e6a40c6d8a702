// Builds the ClusterConfig: flags over MUSELET_* variables over the YAML file over defaults. Every
// fault is found before anything starts, and all of them are reported at once.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node/config/config.h"
#include "node/config/config_fault.h"
#include "node/config/field.h"
#include "node/config/machine.h"

namespace muselet {

struct ConfigRequest {
  std::string file;  // empty = none; then a model must be named by variable or flag
  // MUSELET_* and their values, see environment.h.
  std::map<std::string, std::string> environment;
  // Flags that were given, as option or shortcut keys ("kv.bytes", "http") and their texts.
  std::vector<std::pair<std::string, std::string>> flags;
  // Whose files must exist, and whose KV cache and instruction set this machine must have:
  // everyone's for `serve`, those of one entry for `run`.
  enum class FileCheck { kAll, kOneEntry, kNone };
  FileCheck file_check = FileCheck::kAll;
  // Whether memory and instruction set are those of this machine: it computes for `serve` and
  // `run`; a file that is only looked at may be about other machines, unless all its nodes' hosts
  // are loopback addresses.
  enum class MachineCheck { kAlways, kIfLoopback };
  MachineCheck machine_check = MachineCheck::kAlways;
  std::string entry;               // `run --name`; empty = all entries
  std::optional<Machine> machine;  // nothing = this one, looked at when it is needed
};

// One value of the effective configuration, for `config show`.
struct EffectiveValue {
  std::string key;   // "kv.bytes", "gateways[0].http"
  std::string text;  // "256MiB"
  ValueSource source;
};

struct LoadedConfig {
  ClusterConfig config;
  std::vector<EffectiveValue> values;  // all of them, in the order of the reference page
};

struct ConfigOutcome {
  std::optional<LoadedConfig> loaded;  // nothing if there are faults
  ConfigFaults faults;                 // sorted
  std::vector<std::string> warnings;   // e.g. a variable that is nearly one of ours
};

ConfigOutcome LoadConfig(const ConfigRequest& request);

// The shorter ways to say the most common things, as flags and variables only:
// http (the first gateway's address), model (instead of a file), key_file (of the only surface).
const std::vector<FieldSpec>& ShortcutTable();

}  // namespace muselet
