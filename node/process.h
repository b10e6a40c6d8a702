// Starts roles and keeps them running until SIGINT or SIGTERM. The composition root: it constructs
// every object of a process in order and owns them all.
//
// Called once from main, on the main thread, after InitLog. The exit code: 0 after an orderly stop,
// 2 if the configuration or the machine does not allow the start (one line with the fix on stderr),
// 1 for a fault while running.
#pragma once

#include <functional>
#include <string>

#include "base/status.h"
#include "node/cli/command_line.h"
#include "node/config/config.h"

namespace muselet {

// Reads the configuration again, after a SIGHUP: files, variables and flags as at the start.
using ReloadConfig = std::function<Result<ClusterConfig>()>;

// All roles of `config` in this process. Without `reload` a SIGHUP is what a SIGTERM is; with it,
// replicas whose model changed load the new one (NodeRole::Reload). What else changed is told to
// take effect with the next start.
int RunServe(const ClusterConfig& config, const ReloadConfig& reload = nullptr);

// The gateway, scheduler or node called `name` in `config`.
int RunRole(const ClusterConfig& config, const std::string& name,
            const ReloadConfig& reload = nullptr);

// One rank of a sharded replica, which a node has started (node/rank/rank_process).
int RunRank(const ClusterConfig& config, const RankInvocation& invocation);

}  // namespace muselet
