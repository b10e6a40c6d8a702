// What is known of each value while a configuration is built: where it came from, whether it is in
// doubt because what was written could not be used, and what is wrong with it. Checks between
// values ask for doubt first: a fault that only follows from another one would mislead.
//
// Values are named by their path: "kv.bytes", "nodes[0]", "nodes[0].host".
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "node/config/config_fault.h"

namespace muselet {

class ValueLedger {
 public:
  // `file` is blamed where no value is to blame; may be empty.
  explicit ValueLedger(std::string file) : file_(std::move(file)) {}

  // The value at `path` was given and can be used. From a flag or a variable it ends doubts about
  // what the file says.
  void Give(const std::string& path, ValueSource source);
  // What was given for `path` cannot be used.
  void Refuse(ValueSource source, const std::string& path, std::string problem, std::string hint);
  // Somebody may have meant to give `path`, and wrote something else.
  void Doubt(const std::string& path) { doubted_.insert(path); }
  // A fault of a value that can be read. Blames where `path` was given, else the entry around it,
  // else the file as a whole.
  void Fault(const std::string& path, std::string problem, std::string hint);
  void Add(ConfigFault fault) { faults_.push_back(std::move(fault)); }

  // Where the value came from; kDefault if nobody gave it.
  ValueSource SourceOf(const std::string& path) const;
  bool Given(const std::string& path) const { return sources_.contains(path); }
  // True if the value, or an entry or group around it, was refused or may have been meant.
  bool InDoubt(const std::string& path) const;

  // Sorted.
  ConfigFaults TakeFaults();

 private:
  std::string file_;
  std::map<std::string, ValueSource> sources_;
  std::set<std::string> doubted_;
  ConfigFaults faults_;
};

}  // namespace muselet
