// Finds out before anything heavy starts whether the addresses of a process can be bound, so that a
// taken port is one line at once and not a stack of faults after the model was read.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "node/config/config.h"

namespace muselet {

// One message for each address that the process of `entry` (empty: of all entries) cannot bind:
// what is wrong and what to do. The addresses are free again when this returns.
std::vector<std::string> CheckAddressesFree(const ClusterConfig& config, const std::string& entry);

// OK if HOST:PORT can be bound now. kResourceExhausted: taken; kPermissionDenied; kNotFound: not an
// address of this machine.
Status CheckBindable(const std::string& host_port);

}  // namespace muselet
