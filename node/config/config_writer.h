// The effective configuration as YAML that config_loader reads back to the same values: how a node
// hands its own to the processes of its ranks, wherever it came from.
#pragma once

#include <string>

#include "node/config/config.h"

namespace muselet {

// Only what differs from the defaults. Relative paths become absolute, from the working directory.
std::string WriteConfig(const ClusterConfig& config);

}  // namespace muselet
