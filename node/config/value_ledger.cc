#include "node/config/value_ledger.h"

#include <utility>

namespace muselet {
namespace {

// "nodes[0].host" -> "nodes[0]" -> "nodes" -> "".
std::string Around(const std::string& path) {
  const size_t cut = path.find_last_of(".[");
  return cut == std::string::npos ? "" : path.substr(0, cut);
}

}  // namespace

void ValueLedger::Give(const std::string& path, ValueSource source) {
  // A flag or a variable takes the place of what the file says; a file's own faults stay in doubt.
  if (source.kind != ValueSource::Kind::kFile) doubted_.erase(path);
  sources_[path] = std::move(source);
}

void ValueLedger::Refuse(ValueSource source, const std::string& path, std::string problem,
                         std::string hint) {
  doubted_.insert(path);
  faults_.push_back({std::move(source), path, std::move(problem), std::move(hint)});
}

void ValueLedger::Fault(const std::string& path, std::string problem, std::string hint) {
  ValueSource source{ValueSource::Kind::kFile, file_, 0, 0};
  for (std::string place = path; !place.empty(); place = Around(place)) {
    const auto found = sources_.find(place);
    if (found == sources_.end()) continue;
    source = found->second;
    break;
  }
  faults_.push_back({std::move(source), path, std::move(problem), std::move(hint)});
}

ValueSource ValueLedger::SourceOf(const std::string& path) const {
  const auto found = sources_.find(path);
  return found == sources_.end() ? ValueSource{} : found->second;
}

bool ValueLedger::InDoubt(const std::string& path) const {
  for (std::string place = path; !place.empty(); place = Around(place)) {
    if (doubted_.contains(place)) return true;
  }
  return doubted_.contains("");
}

ConfigFaults ValueLedger::TakeFaults() {
  SortFaults(faults_);
  return std::exchange(faults_, {});
}

}  // namespace muselet
