#include "comms/wire_endpoint.h"

#include <arpa/inet.h>

namespace muselet {
namespace {

constexpr std::string_view kTcp = "tcp://";

}  // namespace

WireEndpoint ParseWireEndpoint(std::string_view text) {
  // Keys may hold '#', addresses do not: the first one ends the address.
  const size_t mark = text.starts_with(kTcp) ? text.find('#') : std::string_view::npos;
  if (mark == std::string_view::npos) return {std::string(text), ""};
  return {std::string(text.substr(0, mark)), std::string(text.substr(mark + 1))};
}

std::string WithServerKey(const std::string& address, const std::string& server_key) {
  return server_key.empty() ? address : address + "#" + server_key;
}

bool IsLoopbackHost(std::string_view host) {
  if (host == "localhost") return true;
  const std::string text(host);
  in_addr four{};
  if (inet_pton(AF_INET, text.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  in6_addr six{};
  return inet_pton(AF_INET6, text.c_str(), &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

bool IsLoopbackEndpoint(std::string_view endpoint) {
  if (!endpoint.starts_with(kTcp)) {
    return endpoint.starts_with("inproc://") || endpoint.starts_with("ipc://");
  }
  std::string_view host = endpoint.substr(kTcp.size());
  host = host.substr(0, host.find('#'));
  host = host.substr(0, host.rfind(':'));
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return IsLoopbackHost(host);
}

}  // namespace muselet
