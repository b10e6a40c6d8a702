#include "node/wire_security.h"

#include <utility>
#include <vector>

#include "comms/wire_endpoint.h"
#include "comms/wire_keys.h"

namespace muselet {
namespace {

template <typename Entry>
void AddKeys(const std::vector<Entry>& entries, std::vector<std::string>& keys) {
  for (const Entry& entry : entries) {
    if (!entry.public_key.empty()) keys.push_back(entry.public_key);
  }
}

}  // namespace

Status SecureWires(const ClusterConfig& config, WireContext& context) {
  const SecurityOptions& options = config.security;
  if (options.key_file.empty()) return OkStatus();
  WireSecurity security;
  ASSIGN_OR_RETURN(security.own, ReadSecretKeyFile(options.key_file));
  if (!options.known_keys_file.empty()) {
    ASSIGN_OR_RETURN(security.members, ReadPublicKeysFile(options.known_keys_file));
  }
  if (!options.front_end_keys_file.empty()) {
    ASSIGN_OR_RETURN(security.front_ends, ReadPublicKeysFile(options.front_end_keys_file));
  }
  AddKeys(config.gateways, security.members);
  AddKeys(config.schedulers, security.members);
  AddKeys(config.nodes, security.members);
  return context.Secure(security);
}

std::string ConnectEndpoint(const SchedulerEntry& scheduler) {
  // Loopback addresses are listened on without keys.
  return IsLoopbackEndpoint(scheduler.rpc) ? scheduler.rpc
                                           : WithServerKey(scheduler.rpc, scheduler.public_key);
}

}  // namespace muselet
