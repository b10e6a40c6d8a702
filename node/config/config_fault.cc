#include "node/config/config_fault.h"

#include <algorithm>
#include <tuple>

namespace muselet {
namespace {

std::string FileMark(const ValueSource& source) {
  if (source.line == 0) return source.name;
  return source.name + ":" + std::to_string(source.line) + ":" + std::to_string(source.column);
}

}  // namespace

std::string ValueSource::ToString() const {
  if (kind == Kind::kDefault) return "default";
  return kind == Kind::kFile ? FileMark(*this) : name;
}

std::string ConfigFault::ToString() const {
  std::string line = FileMark(source);
  if (!line.empty()) line += ": ";
  // Who types a flag or sets a variable need not know the path that it stands for.
  const bool by_name =
      source.kind == ValueSource::Kind::kFlag || source.kind == ValueSource::Kind::kEnvironment;
  if (!key.empty() && !by_name) line += key + ": ";
  line += problem;
  if (!hint.empty()) line += " (" + hint + ")";
  return line;
}

void SortFaults(ConfigFaults& faults) {
  const auto order = [](const ConfigFault& fault) {
    return std::tuple(fault.source.kind, fault.source.line, fault.source.column);
  };
  std::stable_sort(faults.begin(), faults.end(),
                   [&](const auto& a, const auto& b) { return order(a) < order(b); });
}

std::string FormatFaults(const ConfigFaults& faults) {
  std::string text;
  for (const ConfigFault& fault : faults) text += fault.ToString() + "\n";
  return text;
}

}  // namespace muselet
