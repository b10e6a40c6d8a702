// The arguments of the program as plain values. Flags of configuration options come from the option
// table; nothing here is read from the environment or from a file.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "node/cli/client_options.h"

namespace muselet {

enum class Command {
  kServe,
  kRun,
  kRank,
  kChat,
  kBench,
  kConfigCheck,
  kConfigShow,
  kConfigSchema,
  kConfigReference,
  kModelInspect,
  kKeysGenerate,
  kVersion,
};

// What a node tells the process of a rank that it starts.
struct RankInvocation {
  std::string replica;
  uint32_t number = 0;
  std::string leader;  // endpoint where it joins
  bool supervised = false;
};

struct CommandLine {
  Command command = Command::kVersion;
  std::string config_file;  // --config, or the argument of config check and show
  std::vector<std::pair<std::string, std::string>> config_flags;  // option or shortcut key, text
  std::string entry;                                              // run --name
  RankInvocation rank;
  std::string model_path;  // model inspect
  std::string keys_prefix;  // keys generate --out
  bool json = false;
  bool effective = false;  // config show: also what was left at its default
  bool no_files = false;   // config check, show: model and key files may be missing
  ChatOptions chat;
  BenchOptions bench;
};

// The program should print `text` (to stderr unless exit_code is 0) and end.
struct CommandLineExit {
  int exit_code = 0;
  std::string text;
};

// `arguments` without the program's name. Usage errors have exit code 2 and a "did you mean".
std::variant<CommandLine, CommandLineExit> ParseCommandLine(
    const std::vector<std::string>& arguments);

}  // namespace muselet
