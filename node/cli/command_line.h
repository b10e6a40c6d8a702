// The arguments of the program as plain values. Flags of configuration options come from the option
// table; nothing here is read from the environment or from a file.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "node/cli/client_options.h"
#include "node/simulate/simulate_arguments.h"

namespace muselet {

enum class Command {
  kServe,
  kRun,
  kRank,
  kDrain,
  kSimulate,
  kChat,
  kBench,
  kConfigCheck,
  kConfigShow,
  kConfigSchema,
  kConfigReference,
  kModelInspect,
  kKeysGenerate,
  kKeysSecret,
  kVersion,
};

// What a node tells the process of a rank that it starts.
struct RankInvocation {
  std::string replica;
  uint32_t number = 0;
  std::string leader;  // endpoint where it joins
  bool supervised = false;
};

// What `model inspect` is to plan; `asked` if any of it was given.
struct PlanArguments {
  bool asked = false;
  uint32_t tensor = 0;  // 0 = not given, as everywhere here
  uint32_t pipeline = 0;
  std::vector<uint32_t> layers;
  std::string device_memory;  // "80GiB"
  uint32_t context = 0;
  std::string weights;  // "q4_1"
  std::string kv;       // "f16"
};

struct CommandLine {
  Command command = Command::kVersion;
  std::string config_file;  // --config, or the argument of config check and show
  std::vector<std::pair<std::string, std::string>> config_flags;  // option or shortcut key, text
  std::string entry;                                              // run --name, drain NAME
  RankInvocation rank;
  std::string model_path;   // model inspect
  PlanArguments plan;       // model inspect
  std::string keys_prefix;  // keys generate --out, keys secret --out
  bool json = false;
  bool effective = false;  // config show: also what was left at its default
  bool no_files = false;   // config check, show: model and key files may be missing
  SimulateArguments simulate;
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
