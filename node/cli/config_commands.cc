#include "node/cli/config_commands.h"

#include <algorithm>
#include <ostream>

#include "base/json.h"
#include "node/config/environment.h"
#include "node/config/rank_placement.h"

namespace muselet {

std::string ConfigFile(const CommandLine& line,
                       const std::map<std::string, std::string>& environment) {
  if (!line.config_file.empty()) return line.config_file;
  const bool has_model = std::any_of(line.config_flags.begin(), line.config_flags.end(),
                                     [](const auto& flag) { return flag.first == "model"; });
  const auto found = environment.find(kConfigVariable);
  return has_model || found == environment.end() ? "" : found->second;
}

namespace {

bool NamesModel(const ConfigRequest& request) {
  return request.environment.contains("MUSELET_MODEL") ||
         std::any_of(request.flags.begin(), request.flags.end(),
                     [](const auto& flag) { return flag.first == "model"; });
}

std::string Count(size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

// Where the value came from; kDefault if nobody gave it.
ValueSource SourceOf(const LoadedConfig& loaded, const std::string& key) {
  const auto found = std::find_if(loaded.values.begin(), loaded.values.end(),
                                  [&](const EffectiveValue& value) { return value.key == key; });
  return found == loaded.values.end() ? ValueSource() : found->source;
}

// Blames the size that was given; both may be at fault.
ConfigFault ShardFault(const LoadedConfig& loaded, size_t index, const Status& status) {
  const std::string replica = "replicas[" + std::to_string(index) + "]";
  ConfigFault fault{{}, replica, status.message(), ""};
  for (const char* field : {".tensor", ".pipeline"}) {
    fault.source = SourceOf(loaded, replica + field);
    if (fault.source.kind != ValueSource::Kind::kDefault) break;
  }
  return fault;
}

}  // namespace

bool CheckShards(const LoadedConfig& loaded, const CommandLine& line,
                 const CommandHandlers& handlers, const CommandStreams& streams) {
  const ClusterConfig& config = loaded.config;
  ConfigFaults faults;
  for (size_t i = 0; i < config.replicas.size(); ++i) {
    const ReplicaEntry& replica = config.replicas[i];
    const bool here = line.entry.empty() || std::find(replica.on.begin(), replica.on.end(),
                                                      line.entry) != replica.on.end();
    if (!here || !IsSharded(replica)) continue;
    const auto model =
        std::find_if(config.models.begin(), config.models.end(),
                     [&](const ModelEntry& entry) { return entry.id == replica.model; });
    if (model == config.models.end()) continue;
    const Status status = handlers.check_shards(*model, replica);
    if (!status.ok()) faults.push_back(ShardFault(loaded, i, status));
  }
  streams.err << FormatFaults(faults);
  return faults.empty();
}

std::optional<LoadedConfig> LoadForCommand(const CommandLine& line,
                                           const std::map<std::string, std::string>& environment,
                                           const CommandStreams& streams) {
  ConfigRequest request;
  request.file = ConfigFile(line, environment);
  request.environment = environment;
  request.flags = line.config_flags;
  request.entry = line.entry;
  if (line.command == Command::kRank) {
    // Its node has looked at everything, and has put the variables into the file.
    request.environment.clear();
    request.file_check = ConfigRequest::FileCheck::kNone;
  }
  if (line.command == Command::kDrain || line.command == Command::kSimulate) {
    request.entry.clear();
    request.file_check = ConfigRequest::FileCheck::kNone;
    request.machine_check = ConfigRequest::MachineCheck::kIfLoopback;
  }
  if (line.no_files) request.file_check = ConfigRequest::FileCheck::kNone;
  if (line.command == Command::kRun) request.file_check = ConfigRequest::FileCheck::kOneEntry;
  if (line.command == Command::kConfigCheck || line.command == Command::kConfigShow) {
    request.machine_check = ConfigRequest::MachineCheck::kIfLoopback;
  }
  if (request.file.empty() && !NamesModel(request)) {
    streams.err << "muselet: nothing to serve is named: give a cluster file with --config FILE"
                << (line.command == Command::kServe ? ", or a model: muselet serve PATH" : "")
                << "\n";
    return std::nullopt;
  }
  ConfigOutcome outcome = LoadConfig(request);
  for (const std::string& warning : outcome.warnings) streams.err << "warning: " << warning << "\n";
  streams.err << FormatFaults(outcome.faults);
  return std::move(outcome.loaded);
}

int RunConfigCheck(const LoadedConfig& loaded, const CommandLine& line,
                   const CommandStreams& streams) {
  const ClusterConfig& config = loaded.config;
  streams.out << (line.config_file.empty() ? "configuration" : line.config_file) << ": ok, cluster "
              << config.cluster << ": " << Count(config.models.size(), "model") << ", "
              << Count(config.gateways.size(), "gateway") << ", "
              << Count(config.schedulers.size(), "scheduler") << ", "
              << Count(config.nodes.size(), "node") << ", "
              << Count(config.replicas.size(), "replica") << "\n";
  return 0;
}

int RunConfigShow(const LoadedConfig& loaded, const CommandLine& line,
                  const CommandStreams& streams) {
  Json json = Json::array();
  for (const EffectiveValue& value : loaded.values) {
    const bool is_default = value.source.kind == ValueSource::Kind::kDefault;
    if (is_default && !line.effective) continue;
    if (line.json) {
      json.push_back(
          {{"key", value.key}, {"value", value.text}, {"source", value.source.ToString()}});
    } else {
      streams.out << value.key << ": " << (value.text.empty() ? "\"\"" : value.text) << "  # "
                  << value.source.ToString() << "\n";
    }
  }
  if (line.json) streams.out << WriteJson(json) << "\n";
  return 0;
}

}  // namespace muselet
