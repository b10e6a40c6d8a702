// `muselet drain NAME`: asks a scheduler of the cluster to have one of its processes drain.
#pragma once

#include <ostream>
#include <string>

#include "node/config/config.h"

namespace muselet {

// Connects to all schedulers of `config`, as an operator; the first that knows `name` passes the
// word on. 0: it was told; 1: nobody knows it, or no scheduler answers; 2: the config names no
// scheduler that can be reached from another process, or the keys cannot be read. One line on `out`
// or `err`.
int RunDrainCommand(const ClusterConfig& config, const std::string& name, std::ostream& out,
                    std::ostream& err);

}  // namespace muselet
