#include "node/sharded_replica.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "comms/wire_endpoint.h"
#include "node/cli/version.h"
#include "node/config/config_writer.h"
#include "node/cpu/thread_pool.h"
#include "node/load_progress.h"
#include "node/model/rank_model.h"

namespace muselet {
namespace {

constexpr int64_t kTearDownUs = 2'000'000;

// The models of one entry, whose checkpoint the rank opens for itself.
Result<std::string> ModelPath(const ClusterConfig& config, const std::string& id) {
  for (const ModelEntry& model : config.models) {
    if (model.id == id) return model.path;
  }
  return NotFound("the config has no model called " + id);
}

Result<LoadedRank> LoadRank(const std::string& path, const std::string& model,
                            const EngineOptions& engine, const ShardSpec& spec, uint32_t rank) {
  ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> checkpoint, Checkpoint::Open(path));
  ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(*checkpoint, spec));
  LoadProgressDisplay progress(model + " rank " + std::to_string(rank),
                               LoadProgressDisplay::Style::kLog);
  ASSIGN_OR_RETURN(
      std::shared_ptr<RankModel> loaded,
      LoadRankModel(checkpoint, engine, plan, rank,
                    [&](uint64_t done, uint64_t total) { progress.Update(done, total); }));
  return LoadedRank{std::move(loaded), plan.Digest()};
}

}  // namespace

ShardSpec ShardSpecOf(const ReplicaEntry& replica) {
  return {replica.tensor, replica.pipeline, replica.layers};
}

EpochTiming EpochTimingOf(const EngineOptions& engine) {
  EpochTiming timing;
  timing.join_timeout_us = engine.ranks.join_timeout_us;
  timing.silence_us = engine.ranks.silence_timeout_us;
  timing.step_timeout_min_us = engine.ranks.silence_timeout_us;
  timing.teardown_timeout_us = kTearDownUs;
  return timing;
}

std::string BuildName() {
  return std::string(SoftwareVersion()) + " (" + std::string(SoftwareRevision()) + ")";
}

Result<RankStepEngineOptions> LeaderOptions(const ClusterConfig& config,
                                            const ReplicaEntry& replica, const ShardPlan& plan,
                                            const Checkpoint& checkpoint) {
  RankStepEngineOptions options;
  options.replica = replica.name;
  options.endpoint = RanksEndpoint(config, replica);
  options.tensor = replica.tensor;
  options.pipeline = replica.pipeline;
  for (const RankPlacement& place : PlaceRanks(config, replica)) {
    options.nodes.push_back(place.node);
  }
  ASSIGN_OR_RETURN(options.info, DescribeShardedModel(checkpoint, config.engine, plan));
  options.software_version = BuildName();
  options.shard_plan_digest = plan.Digest();
  options.slots = config.engine.batch.sequences_max;
  options.rows_max = config.engine.batch.step_tokens_max;
  options.timing = EpochTimingOf(config.engine);
  return options;
}

std::string LeaderEndpoint(const ClusterConfig& config, const ReplicaEntry& replica) {
  const NodeEntry* leader = FindNode(config, LeaderOf(replica));
  CHECK(leader != nullptr, "checked with the config");
  std::string endpoint = RanksEndpoint(config, replica);
  // Listened on without keys.
  if (IsLoopbackEndpoint(endpoint)) return endpoint;
  // An address that means all of the leader's is none to connect to.
  for (const std::string any : {"tcp://0.0.0.0:", "tcp://*:"}) {
    if (endpoint.starts_with(any)) {
      endpoint = "tcp://" + leader->host + ":" + endpoint.substr(any.size());
    }
  }
  return WithServerKey(endpoint, leader->public_key);
}

uint32_t ThreadsPerRank(const ClusterConfig& config, const NodeEntry& node, bool whole_cluster) {
  if (config.engine.cpu.threads > 0) return config.engine.cpu.threads;
  const auto here = [&](const std::string& name) { return whole_cluster || name == node.name; };
  size_t ranks = 0;
  for (const ReplicaEntry& replica : config.replicas) {
    if (IsSharded(replica)) {
      const std::vector<RankPlacement> places = PlaceRanks(config, replica);
      ranks += std::count_if(places.begin(), places.end(),
                             [&](const RankPlacement& place) { return here(place.node); });
    } else {
      ranks += std::count_if(replica.on.begin(), replica.on.end(), here);
    }
  }
  const size_t cores = cpu::ThreadPool::AvailableCpus();
  return static_cast<uint32_t>(std::max<size_t>(cores / std::max<size_t>(ranks, 1), 1));
}

std::vector<RankChildSpec> RanksOnNode(const ClusterConfig& config, const ReplicaEntry& replica,
                                       const NodeEntry& node, const std::string& leader,
                                       bool whole_cluster) {
  ClusterConfig rank_config = config;
  rank_config.engine.cpu.threads = ThreadsPerRank(config, node, whole_cluster);
  const std::string yaml = WriteConfig(rank_config);
  std::vector<RankChildSpec> specs;
  for (const RankPlacement& place : PlaceRanks(config, replica)) {
    if (place.node == node.name) specs.push_back({replica.name, place.rank, leader, yaml});
  }
  return specs;
}

Result<RankProcessOptions> RankOptionsOf(const ClusterConfig& config,
                                         const RankInvocation& invocation) {
  const auto replica =
      std::find_if(config.replicas.begin(), config.replicas.end(),
                   [&](const ReplicaEntry& entry) { return entry.name == invocation.replica; });
  if (replica == config.replicas.end()) {
    return NotFound("the config has no replica called " + invocation.replica);
  }
  const std::vector<RankPlacement> places = PlaceRanks(config, *replica);
  if (!IsSharded(*replica) || invocation.number >= places.size()) {
    return NotFound("replica " + replica->name + " has no rank " +
                    std::to_string(invocation.number) + " with a process of its own");
  }
  const NodeEntry* node = FindNode(config, places[invocation.number].node);
  CHECK(node != nullptr, "PlaceRanks gives nodes of the config");
  ASSIGN_OR_RETURN(const std::string path, ModelPath(config, replica->model));
  RankProcessOptions options;
  options.replica = replica->name;
  options.position = {invocation.number, replica->tensor, replica->pipeline};
  options.leader = invocation.leader;
  options.node = node->name;
  options.host = node->host;
  options.software_version = BuildName();
  options.slots = config.engine.batch.sequences_max;
  options.rows_max = config.engine.batch.step_tokens_max;
  options.timing = EpochTimingOf(config.engine);
  options.supervised = invocation.supervised;
  options.load = [path, model = replica->model, engine = config.engine,
                  spec = ShardSpecOf(*replica),
                  rank = invocation.number] { return LoadRank(path, model, engine, spec, rank); };
  return options;
}

}  // namespace muselet
