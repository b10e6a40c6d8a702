#include "node/cli/preflight.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "node/config/address.h"

namespace muselet {
namespace {

Status BindFault(const std::string& address, int error) {
  switch (error) {
    case EADDRINUSE:
      return ResourceExhausted(address + " is taken by another process");
    case EACCES:
      return PermissionDenied(address + " needs permission (ports below 1024 are root's)");
    case EADDRNOTAVAIL:
      return NotFound(address + " is not an address of this machine");
    default:
      return Unavailable(address + " cannot be bound: " + std::strerror(error));
  }
}

std::string WithoutScheme(const std::string& endpoint) {
  constexpr std::string_view kTcp = "tcp://";
  return endpoint.rfind(kTcp, 0) == 0 ? endpoint.substr(kTcp.size()) : endpoint;
}

struct Listener {
  std::string key;
  std::string address;
  std::string fix;
};

std::vector<Listener> ListenersOf(const ClusterConfig& config, const std::string& entry) {
  std::vector<Listener> all;
  const auto add = [&](const std::string& name, const char* what, const std::string& address,
                       const char* fix) {
    const bool here = entry.empty() || entry == name;
    if (here && !address.empty() && !IsInproc(address)) {
      all.push_back({name + " " + what, WithoutScheme(address), fix});
    }
  };
  for (const GatewayEntry& gateway : config.gateways) {
    add(gateway.name, "http", gateway.http,
        "stop the other process, or choose another address with --http HOST:PORT");
    add(gateway.name, "rpc", gateway.rpc, "choose another address for its rpc");
  }
  for (const SchedulerEntry& scheduler : config.schedulers) {
    add(scheduler.name, "rpc", scheduler.rpc, "choose another address for its rpc");
    if (!entry.empty()) {
      add(scheduler.name, "metrics", scheduler.metrics, "choose another address for its metrics");
    }
  }
  for (const NodeEntry& node : config.nodes) {
    if (!entry.empty()) {
      add(node.name, "metrics", node.metrics, "choose another address for its metrics");
    }
  }
  return all;
}

}  // namespace

Status CheckBindable(const std::string& host_port) {
  ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(host_port));
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int fault =
      getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (fault != 0) return NotFound(address.host + ": " + gai_strerror(fault));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, &freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return BindFault(host_port, errno);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const int error = bind(fd, found->ai_addr, found->ai_addrlen) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? OkStatus() : BindFault(host_port, error);
}

std::vector<std::string> CheckAddressesFree(const ClusterConfig& config, const std::string& entry) {
  std::vector<std::string> faults;
  for (const Listener& listener : ListenersOf(config, entry)) {
    const Status status = CheckBindable(listener.address);
    if (status.ok()) continue;
    faults.push_back(listener.key + ": " + status.message() + " (" + listener.fix + ")");
  }
  return faults;
}

}  // namespace muselet
