// The flags that say which requests are made: of `bench` to a server, of `simulate` to a simulated
// cluster. What they fill outlives the command.
#pragma once

#include <CLI/CLI.hpp>

#include "node/cli/client_options.h"
#include "node/simulate/simulate_arguments.h"

namespace muselet {

void AddBenchLoad(CLI::App* command, BenchOptions& bench);
void AddBenchRequests(CLI::App* command, BenchOptions& bench);
void AddSimulateFlags(CLI::App* command, SimulateArguments& arguments);

}  // namespace muselet
