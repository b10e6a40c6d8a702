// The keys of the wires as the config gives them: every process of a cluster that has a
// security.key_file applies them before it makes its first socket.
#pragma once

#include <string>

#include "base/status.h"
#include "comms/message_socket.h"
#include "node/config/config.h"

namespace muselet {

// Secures `context` with the keys of `config`; does nothing if it has none. Admitted are the own
// key, the public_key of every entry and those of known_keys_file; on sockets for front ends those
// of front_end_keys_file too. Faults name the file.
Status SecureWires(const ClusterConfig& config, WireContext& context);

// Where nodes and gateways connect to the scheduler: its rpc, with its public key if it has one
// and the rpc is no loopback address (those are plain).
std::string ConnectEndpoint(const SchedulerEntry& scheduler);

}  // namespace muselet
