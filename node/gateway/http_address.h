// HOST:PORT in options, [IPV6]:PORT for IPv6.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace muselet {

struct HttpAddress {
  std::string host;
  uint16_t port = 0;
};

// kInvalidArgument that shows what is expected and names `option` as what to change.
Result<HttpAddress> ParseHttpAddress(const std::string& text, const std::string& option);

}  // namespace muselet
