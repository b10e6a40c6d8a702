// From arguments to a command and its exit code. What a command needs from the rest of the program
// (starting roles, reading checkpoints) is handed in, so this folder builds and tests without it.
#pragma once

#include <functional>
#include <iosfwd>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "node/cli/command_line.h"
#include "node/config/config.h"

namespace muselet {

struct CommandHandlers {
  std::function<int(const ClusterConfig&)> serve;
  std::function<int(const ClusterConfig&, const std::string& name)> run;
  // Called before serve and run if they read a file: how to read all of it again. Optional.
  std::function<void(std::function<Result<ClusterConfig>()>)> offer_reload;
  // The process of this name is to drain.
  std::function<int(const ClusterConfig&, const std::string& name)> drain;
  // What the cluster would do under a trace.
  std::function<int(const ClusterConfig&, const SimulateArguments&)> simulate;
  std::function<int(const ClusterConfig&, const RankInvocation&)> rank;
  // kInvalidArgument if the model cannot be cut into the ranks of the replica.
  std::function<Status(const ModelEntry&, const ReplicaEntry&)> check_shards;
  // What a checkpoint holds, as text or as a JSON object.
  std::function<Result<std::string>(const std::string& path, bool json)> inspect_model;
  // How it is divided over ranks and what memory it needs; a config.json alone will do.
  std::function<Result<std::string>(const std::string& path, const PlanArguments&, bool json)>
      plan_model;
};

// Where a command reads and writes; borrowed. `in_terminal` etc.: the stream is a terminal.
struct CommandStreams {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_terminal = false;
  bool err_terminal = false;
};

// Runs one command on the calling thread. `arguments` without the program's name; `environment` as
// ReadEnvironment gives it. Exit codes: 0 done, 1 failed while working, 2 wrong usage or input, or
// an exception: memory or threads that the machine refused.
int RunCli(const std::vector<std::string>& arguments,
           const std::map<std::string, std::string>& environment, const CommandHandlers& handlers,
           const CommandStreams& streams);

}  // namespace muselet
