// `muselet keys generate`: a pair of keys for the wires between processes.
#pragma once

#include <string>

#include "node/cli/cli.h"

namespace muselet {

// Writes PREFIX.key and PREFIX.pub and prints what to do with them. The exit code: 2, with one line
// that says why, if that cannot be done.
int RunKeysGenerate(const std::string& prefix, const CommandStreams& streams);

}  // namespace muselet
