// From the config to the parts of a sharded replica: what its leader must know, which ranks a node
// starts, and how a rank's process is set up.
//
// Pure functions of their arguments, but for reading checkpoints; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "node/cli/command_line.h"
#include "node/config/config.h"
#include "node/config/rank_placement.h"
#include "node/model/checkpoint.h"
#include "node/model/shard_plan.h"
#include "node/rank/epoch_timing.h"
#include "node/rank/rank_children.h"
#include "node/rank/rank_process.h"
#include "node/rank/rank_step_engine.h"

namespace muselet {

ShardSpec ShardSpecOf(const ReplicaEntry& replica);
EpochTiming EpochTimingOf(const EngineOptions& engine);
// What leader and ranks compare: the release and the commit that they were built from.
std::string BuildName();

// For the leader's engine; `endpoint`, `nodes` and all. Faults of the plan name the replica.
Result<RankStepEngineOptions> LeaderOptions(const ClusterConfig& config,
                                            const ReplicaEntry& replica, const ShardPlan& plan,
                                            const Checkpoint& checkpoint);

// Where ranks on other nodes than the leader's find it.
std::string LeaderEndpoint(const ClusterConfig& config, const ReplicaEntry& replica);

// The compute threads of one rank on a node: what the config says, or this machine's cores divided
// among the ranks (replicas of one rank, too) that compute on it. `whole_cluster`: all nodes of the
// config are on this machine.
uint32_t ThreadsPerRank(const ClusterConfig& config, const NodeEntry& node, bool whole_cluster);

// The ranks of `replica` that `node` starts, told to join at `leader`.
std::vector<RankChildSpec> RanksOnNode(const ClusterConfig& config, const ReplicaEntry& replica,
                                       const NodeEntry& node, const std::string& leader,
                                       bool whole_cluster);

// The process of one rank. kNotFound: `config` has no such replica or rank.
Result<RankProcessOptions> RankOptionsOf(const ClusterConfig& config,
                                         const RankInvocation& invocation);

}  // namespace muselet
