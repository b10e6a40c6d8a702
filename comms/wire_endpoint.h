// Endpoints of wires as text: tcp://HOST:PORT, inproc://NAME, ipc://PATH; and a tcp:// one with the
// public key of the process that listens there, tcp://HOST:PORT#KEY, so that the key travels with
// the address to those who shall connect. Only the text is looked at; no name is resolved.
#pragma once

#include <string>
#include <string_view>

namespace muselet {

struct WireEndpoint {
  std::string address;     // what ZeroMQ takes
  std::string server_key;  // 40 characters of Z85; empty = none was told
};

WireEndpoint ParseWireEndpoint(std::string_view text);
// "ADDRESS#KEY", or the address alone if the key is empty.
std::string WithServerKey(const std::string& address, const std::string& server_key);

// True for 127.0.0.0/8, ::1 and "localhost".
bool IsLoopbackHost(std::string_view host);
// True for inproc://, ipc:// and for tcp:// of a loopback host, whatever the port.
bool IsLoopbackEndpoint(std::string_view endpoint);

}  // namespace muselet
