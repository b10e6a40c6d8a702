// Joins the command line (node/cli) and the composition root (node/process).
#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "node/cli/cli.h"
#include "node/config/environment.h"
#include "node/model/checkpoint.h"
#include "node/model/model_inspect.h"
#include "node/model/shard_plan.h"
#include "node/process.h"
#include "node/sharded_replica.h"

namespace {

muselet::Result<std::string> InspectModel(const std::string& path, bool json) {
  ASSIGN_OR_RETURN(const std::unique_ptr<muselet::Checkpoint> checkpoint,
                   muselet::Checkpoint::Open(path));
  return json ? muselet::InspectJson(*checkpoint) : muselet::InspectText(*checkpoint);
}

muselet::Status CheckShards(const muselet::ModelEntry& model,
                            const muselet::ReplicaEntry& replica) {
  ASSIGN_OR_RETURN(const std::unique_ptr<muselet::Checkpoint> checkpoint,
                   muselet::Checkpoint::Open(model.path));
  return muselet::MakeShardPlan(*checkpoint, muselet::ShardSpecOf(replica)).status();
}

}  // namespace

int main(int argc, char** argv) {
  muselet::CommandHandlers handlers;
  handlers.serve = muselet::RunServe;
  handlers.run = muselet::RunRole;
  handlers.rank = muselet::RunRank;
  handlers.check_shards = CheckShards;
  handlers.inspect_model = InspectModel;
  const muselet::CommandStreams streams{std::cin, std::cout, std::cerr, isatty(STDIN_FILENO) != 0,
                                        isatty(STDERR_FILENO) != 0};
  return muselet::RunCli(std::vector<std::string>(argv + 1, argv + argc),
                         muselet::ReadEnvironment(), handlers, streams);
}
