// Where a configuration value came from, and what is wrong with one. All faults of a configuration
// are collected and shown at once, each as one line: `file:line:column: key: problem (hint)`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace muselet {

// The origin of one value, in ascending precedence.
struct ValueSource {
  enum class Kind { kDefault, kFile, kEnvironment, kFlag };
  Kind kind = Kind::kDefault;
  std::string name;  // file path, variable or flag; for kDefault the file that could have set it
  int line = 0;      // from 1, kFile only; 0 = the file as a whole
  int column = 0;

  // "default", "cluster.yaml:3:7", "MUSELET_KV_BYTES" or "--kv-bytes": for people.
  std::string ToString() const;
};

struct ConfigFault {
  ValueSource source;
  std::string key;      // path of the value, e.g. "gateways[0].http"; empty = the whole document
  std::string problem;  // what is wrong
  std::string hint;     // what to do; may be empty

  // Flags and variables name their key themselves.
  std::string ToString() const;
};
using ConfigFaults = std::vector<ConfigFault>;

// In the order of the file, then variables, then flags. Faults of one place keep their order.
void SortFaults(ConfigFaults& faults);

// One line each, with a newline after every line.
std::string FormatFaults(const ConfigFaults& faults);

}  // namespace muselet
