// Joins the command line (node/cli) and the composition root (node/process).
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "node/cli/cli.h"
#include "node/config/environment.h"
#include "node/config/quantity.h"
#include "node/drain_command.h"
#include "node/model/checkpoint.h"
#include "node/model/model_inspect.h"
#include "node/model/model_outline.h"
#include "node/model/model_planner.h"
#include "node/model/shard_plan.h"
#include "node/process.h"
#include "node/sharded_replica.h"
#include "node/simulate/simulate_command.h"

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

muselet::Result<std::string> PlanModel(const std::string& path,
                                       const muselet::PlanArguments& arguments, bool json) {
  muselet::PlanRequest request;
  request.path = path;
  request.spec.stage_layers = arguments.layers;
  request.spec.tensor = std::max(1U, arguments.tensor);
  request.spec.pipeline =
      arguments.pipeline > 0 ? arguments.pipeline : std::max<uint32_t>(1, arguments.layers.size());
  request.any_layout = arguments.tensor == 0 && arguments.pipeline == 0 && arguments.layers.empty();
  request.context_tokens = arguments.context;
  if (!arguments.device_memory.empty()) {
    const auto bytes = muselet::ParseBytes(arguments.device_memory);
    if (!bytes.ok()) return bytes.status().WithContext("--device-memory");
    if (*bytes == 0) return muselet::InvalidArgument("--device-memory: expected more than nothing");
    request.device_bytes = static_cast<uint64_t>(*bytes);
  }
  if (!arguments.weights.empty()) {
    request.weights = muselet::ParseDType(arguments.weights);
    if (!request.weights) {
      return muselet::InvalidArgument(
          "--weights: expected f32, f16, bf16, q8_0, q4_0, q4_1 or "
          "q6_k, found \"" +
          arguments.weights + "\"");
    }
  }
  if (arguments.kv == "f32") request.kv = muselet::DType::kF32;
  if (!arguments.kv.empty() && arguments.kv != "f32" && arguments.kv != "f16") {
    return muselet::InvalidArgument("--kv: expected f16 or f32, found \"" + arguments.kv + "\"");
  }
  return json ? muselet::PlanJson(request) : muselet::PlanText(request);
}

}  // namespace

int main(int argc, char** argv) {
  muselet::CommandHandlers handlers;
  muselet::ReloadConfig reload;
  handlers.offer_reload = [&](muselet::ReloadConfig offered) { reload = std::move(offered); };
  handlers.serve = [&](const muselet::ClusterConfig& config) {
    return muselet::RunServe(config, reload);
  };
  handlers.run = [&](const muselet::ClusterConfig& config, const std::string& name) {
    return muselet::RunRole(config, name, reload);
  };
  handlers.drain = [](const muselet::ClusterConfig& config, const std::string& name) {
    return muselet::RunDrainCommand(config, name, std::cout, std::cerr);
  };
  handlers.simulate = [](const muselet::ClusterConfig& config,
                         const muselet::SimulateArguments& arguments) {
    return muselet::RunSimulateCommand(config, arguments, std::cout, std::cerr);
  };
  handlers.rank = muselet::RunRank;
  handlers.check_shards = CheckShards;
  handlers.inspect_model = InspectModel;
  handlers.plan_model = PlanModel;
  const muselet::CommandStreams streams{std::cin, std::cout, std::cerr, isatty(STDIN_FILENO) != 0,
                                        isatty(STDERR_FILENO) != 0};
  return muselet::RunCli(std::vector<std::string>(argv + 1, argv + argc),
                         muselet::ReadEnvironment(), handlers, streams);
}
