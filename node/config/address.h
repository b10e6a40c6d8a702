// Addresses as the config writes them: HOST:PORT for HTTP, tcp://HOST:PORT or inproc://NAME for the
// wires. Only the text is looked at; no name is resolved.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

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

// True for 127.0.0.0/8, ::1 and "localhost".
bool IsLoopbackHost(std::string_view host);
// True for inproc:// and for tcp:// of a loopback host.
bool IsLoopbackEndpoint(std::string_view endpoint);

}  // namespace muselet
