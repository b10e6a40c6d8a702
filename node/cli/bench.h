// `muselet bench`: measures an OpenAI-compatible server under a closed or an open load.
#pragma once

#include "node/cli/cli.h"
#include "node/cli/client_options.h"

namespace muselet {

// Exit code 0 if at least one request succeeded, 1 if none did, 2 for bad input or a server that
// cannot be reached. The progress line and faults go to `err`, the table to `out`. Blocks.
int RunBench(const BenchOptions& options, const CommandStreams& streams);

}  // namespace muselet
