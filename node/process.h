// Starts roles and keeps them running until SIGINT or SIGTERM. The composition root: it constructs
// every object of a process in order and owns them all.
//
// Called once from main, on the main thread, after InitLog. The exit code: 0 after an orderly stop,
// 2 if the configuration or the machine does not allow the start (one line with the fix on stderr),
// 1 for a fault while running.
#pragma once

#include <string>

#include "node/cli/command_line.h"
#include "node/config/config.h"

namespace muselet {

// All roles of `config` in this process.
int RunServe(const ClusterConfig& config);

// The gateway, scheduler or node called `name` in `config`.
int RunRole(const ClusterConfig& config, const std::string& name);

// One rank of a sharded replica, which a node has started (node/rank/rank_process).
int RunRank(const ClusterConfig& config, const RankInvocation& invocation);

}  // namespace muselet
