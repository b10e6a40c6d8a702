// Addresses as the config writes them: HOST:PORT for HTTP, tcp://HOST:PORT or inproc://NAME for the
// wires. Only the text is looked at; no name is resolved.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "comms/wire_endpoint.h"

namespace muselet {

struct HostPort {
  std::string host;   // without the brackets of an IPv6 address
  uint16_t port = 0;  // 0 = the system chooses
};

// kInvalidArgument says what is wrong with `text`, without repeating it.
Result<HostPort> ParseHostPort(std::string_view text);

// tcp://HOST:PORT or inproc://NAME.
Status CheckEndpoint(std::string_view text);
bool IsInproc(std::string_view endpoint);

// An IPv4 or IPv6 address, or a DNS name.
Status CheckHost(std::string_view host);

}  // namespace muselet
