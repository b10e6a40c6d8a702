#include "node/cli/config_commands.h"

#include <algorithm>
#include <ostream>

#include "base/json.h"
#include "node/config/environment.h"

namespace muselet {
namespace {

std::string ConfigFile(const CommandLine& line,
                       const std::map<std::string, std::string>& environment) {
  if (!line.config_file.empty()) return line.config_file;
  const bool has_model = std::any_of(line.config_flags.begin(), line.config_flags.end(),
                                     [](const auto& flag) { return flag.first == "model"; });
  const auto found = environment.find(kConfigVariable);
  return has_model || found == environment.end() ? "" : found->second;
}

bool NamesModel(const ConfigRequest& request) {
  return request.environment.contains("MUSELET_MODEL") ||
         std::any_of(request.flags.begin(), request.flags.end(),
                     [](const auto& flag) { return flag.first == "model"; });
}

std::string Count(size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

}  // namespace

std::optional<LoadedConfig> LoadForCommand(const CommandLine& line,
                                           const std::map<std::string, std::string>& environment,
                                           const CommandStreams& streams) {
  ConfigRequest request;
  request.file = ConfigFile(line, environment);
  request.environment = environment;
  request.flags = line.config_flags;
  request.entry = line.entry;
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
