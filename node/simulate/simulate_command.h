// `muselet simulate`: what the cluster of a config would do under a trace, without the cluster.
#pragma once

#include <ostream>

#include "node/config/config.h"
#include "node/simulate/simulate_arguments.h"

namespace muselet {

// Exit codes as node/cli: 0 done, 2 wrong input. Blocks.
int RunSimulateCommand(const ClusterConfig& config, const SimulateArguments& arguments,
                       std::ostream& out, std::ostream& err);

}  // namespace muselet
