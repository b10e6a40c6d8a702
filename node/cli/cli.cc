#include "node/cli/cli.h"

#include <exception>
#include <new>
#include <ostream>
#include <system_error>
#include <variant>

#include "base/log.h"
#include "node/cli/bench.h"
#include "node/cli/chat.h"
#include "node/cli/command_line.h"
#include "node/cli/config_commands.h"
#include "node/cli/keys_command.h"
#include "node/cli/preflight.h"
#include "node/cli/version.h"
#include "node/config/config_reference.h"
#include "node/config/config_schema.h"
#include "node/config/environment.h"

namespace muselet {
namespace {

constexpr int kWrongInput = 2;

int RunRoles(const CommandLine& line, const LoadedConfig& loaded, const CommandHandlers& handlers,
             const CommandStreams& streams) {
  const ClusterConfig& config = loaded.config;
  const std::vector<std::string> taken = CheckAddressesFree(config, line.entry);
  for (const std::string& fault : taken) streams.err << "muselet: " << fault << "\n";
  if (!taken.empty()) return kWrongInput;
  LogOptions log;
  log.level = config.log_level;
  log.format = config.log_format;
  log.process_name = line.command == Command::kRun ? line.entry : "serve";
  InitLog(log);
  return line.command == Command::kRun ? handlers.run(config, line.entry) : handlers.serve(config);
}

int RunRankOf(const CommandLine& line, const ClusterConfig& config,
              const CommandHandlers& handlers) {
  LogOptions log;
  log.level = config.log_level;
  log.format = config.log_format;
  log.process_name = line.rank.replica + " rank " + std::to_string(line.rank.number);
  InitLog(log);
  return handlers.rank(config, line.rank);
}

// What a running process calls to read its configuration again; it outlives neither argument.
std::function<Result<ClusterConfig>()> Reloader(
    const CommandLine& line, const std::map<std::string, std::string>& environment,
    const CommandHandlers& handlers, const CommandStreams& streams) {
  return [&]() -> Result<ClusterConfig> {
    const auto loaded = LoadForCommand(line, environment, streams);
    if (!loaded || (!line.no_files && !CheckShards(*loaded, line, handlers, streams))) {
      return InvalidArgument("see the lines above");
    }
    return loaded->config;
  };
}

int RunConfigured(const CommandLine& line, const std::map<std::string, std::string>& environment,
                  const CommandHandlers& handlers, const CommandStreams& streams) {
  const auto loaded = LoadForCommand(line, environment, streams);
  if (!loaded) return kWrongInput;
  if (!line.no_files && line.command != Command::kConfigShow && line.command != Command::kRank &&
      line.command != Command::kDrain && line.command != Command::kSimulate &&
      !CheckShards(*loaded, line, handlers, streams)) {
    return kWrongInput;
  }
  if (line.command == Command::kConfigCheck) return RunConfigCheck(*loaded, line, streams);
  if (line.command == Command::kConfigShow) return RunConfigShow(*loaded, line, streams);
  if (line.command == Command::kRank) return RunRankOf(line, loaded->config, handlers);
  if (line.command == Command::kDrain) return handlers.drain(loaded->config, line.entry);
  if (line.command == Command::kSimulate) return handlers.simulate(loaded->config, line.simulate);
  if (handlers.offer_reload && !ConfigFile(line, environment).empty()) {
    handlers.offer_reload(Reloader(line, environment, handlers, streams));
  }
  return RunRoles(line, *loaded, handlers, streams);
}

int RunModelInspect(const CommandLine& line, const CommandHandlers& handlers,
                    const CommandStreams& streams) {
  const Result<std::string> text = line.plan.asked
                                       ? handlers.plan_model(line.model_path, line.plan, line.json)
                                       : handlers.inspect_model(line.model_path, line.json);
  if (!text.ok()) {
    streams.err << "muselet: " << text.status().message() << "\n";
    return kWrongInput;
  }
  streams.out << *text << (text->ends_with('\n') ? "" : "\n");
  return 0;
}

int RunClient(CommandLine line, const std::map<std::string, std::string>& environment,
              const CommandStreams& streams) {
  const auto key = environment.find(kApiKeyVariable);
  if (key != environment.end()) {
    if (line.chat.api_key.empty()) line.chat.api_key = key->second;
    if (line.bench.api_key.empty()) line.bench.api_key = key->second;
  }
  return line.command == Command::kChat ? RunChat(line.chat, streams)
                                        : RunBench(line.bench, streams);
}

int Dispatch(const CommandLine& line, const std::map<std::string, std::string>& environment,
             const CommandHandlers& handlers, const CommandStreams& streams) {
  switch (line.command) {
    case Command::kServe:
    case Command::kRun:
    case Command::kRank:
    case Command::kDrain:
    case Command::kSimulate:
    case Command::kConfigCheck:
    case Command::kConfigShow:
      return RunConfigured(line, environment, handlers, streams);
    case Command::kConfigSchema:
      streams.out << ConfigSchema();
      return 0;
    case Command::kConfigReference:
      streams.out << ConfigReference();
      return 0;
    case Command::kChat:
    case Command::kBench:
      return RunClient(line, environment, streams);
    case Command::kModelInspect:
      return RunModelInspect(line, handlers, streams);
    case Command::kKeysGenerate:
      return RunKeysGenerate(line.keys_prefix, streams);
    case Command::kKeysSecret:
      return RunKeysSecret(line.keys_prefix, streams);
    case Command::kVersion:
      streams.out << (line.json ? VersionJson() : VersionText());
      return 0;
  }
  return kWrongInput;
}

// What to do about an exception that nothing expected: the machine refused something.
std::string HintFor(const std::exception& fault) {
  if (dynamic_cast<const std::bad_alloc*>(&fault) != nullptr) {
    return " (out of memory: lower kv.bytes, or raise the memory limit of this process)";
  }
  const auto* system = dynamic_cast<const std::system_error*>(&fault);
  if (system != nullptr && system->code() == std::errc::resource_unavailable_try_again) {
    return " (no thread can be started: lower cpu.threads, or raise the limits on threads, ulimit "
           "-u and the cgroup's pids.max)";
  }
  return "";
}

}  // namespace

int RunCli(const std::vector<std::string>& arguments,
           const std::map<std::string, std::string>& environment, const CommandHandlers& handlers,
           const CommandStreams& streams) {
  const auto parsed = ParseCommandLine(arguments);
  if (const auto* exit = std::get_if<CommandLineExit>(&parsed)) {
    (exit->exit_code == 0 ? streams.out : streams.err) << exit->text;
    return exit->exit_code;
  }
  try {
    return Dispatch(std::get<CommandLine>(parsed), environment, handlers, streams);
  } catch (const std::exception& fault) {
    streams.err << "muselet: " << fault.what() << HintFor(fault) << "\n";
    return kWrongInput;
  }
}

}  // namespace muselet
