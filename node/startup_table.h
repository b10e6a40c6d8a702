// What a user sees when a process is ready: what is served, how large, where, how safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "node/roles.h"

namespace muselet {

// Rows of "name  value" in reading order; an empty name continues the row above.
using StartupRows = std::vector<std::pair<std::string, std::string>>;

// The table as text, one row a line, names padded to one column.
std::string FormatStartupTable(const StartupRows& rows);

void AddReplicaRows(const NodeRole& node, const EngineOptions& options, StartupRows& rows);
void AddGatewayRows(const GatewayRole& gateway, StartupRows& rows);

}  // namespace muselet
