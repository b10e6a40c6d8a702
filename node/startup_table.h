// What a user sees when a process is ready: what is served, how large, where, how safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "node/model/model.h"
#include "node/roles.h"

namespace muselet {

// Rows of "name  value" in reading order; an empty name continues the row above.
using StartupRows = std::vector<std::pair<std::string, std::string>>;

// The table as text, one row a line, names padded to one column.
std::string FormatStartupTable(const StartupRows& rows);

void AddNodeRows(const NodeRole& node, const EngineOptions& options, StartupRows& rows);
void AddSchedulerRows(const SchedulerRole& scheduler, StartupRows& rows);
void AddGatewayRows(const GatewayRole& gateway, StartupRows& rows);
// What the whole process uses.
void AddProcessRows(StartupRows& rows);

// How a replica is divided, and where its ranks are.
void AddRankRows(const NodeRole::ReplicaSummary& replica, StartupRows& rows);

// One replica's model, formats, context and KV cache.
void AddModelRows(const std::string& model, const ModelInfo& info, const EngineOptions& options,
                  StartupRows& rows);

// "256.0 MiB", "1.50 GiB".
std::string FormatMemory(uint64_t bytes);

}  // namespace muselet
