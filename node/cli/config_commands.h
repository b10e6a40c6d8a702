// `muselet config check|show|schema|reference`, and the loading that serve and run share with them.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "node/cli/cli.h"
#include "node/cli/command_line.h"
#include "node/config/config_loader.h"

namespace muselet {

// Of the flag, or the variable; empty = none.
std::string ConfigFile(const CommandLine& line,
                       const std::map<std::string, std::string>& environment);

// The configuration that the arguments and variables ask for; its faults go to `streams.err`.
std::optional<LoadedConfig> LoadForCommand(const CommandLine& line,
                                           const std::map<std::string, std::string>& environment,
                                           const CommandStreams& streams);

// Whether the models can be cut as the replicas want it: of those that the process of `run` has a
// part in, or of all. Says on `streams.err` what cannot.
bool CheckShards(const LoadedConfig& loaded, const CommandLine& line,
                 const CommandHandlers& handlers, const CommandStreams& streams);

int RunConfigCheck(const LoadedConfig& loaded, const CommandLine& line,
                   const CommandStreams& streams);
int RunConfigShow(const LoadedConfig& loaded, const CommandLine& line,
                  const CommandStreams& streams);

}  // namespace muselet
