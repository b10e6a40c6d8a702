// `muselet keys generate`: a pair of keys for the wires between processes. `muselet keys secret`:
// what the gateways of a cluster share.
#pragma once

#include <string>

#include "node/cli/cli.h"

namespace muselet {

// Writes PREFIX.key and PREFIX.pub and prints what to do with them. The exit code: 2, with one line
// that says why, if that cannot be done.
int RunKeysGenerate(const std::string& prefix, const CommandStreams& streams);

// Writes the file and says what it is for. The exit code as above.
int RunKeysSecret(const std::string& path, const CommandStreams& streams);

}  // namespace muselet
