#include "node/gateway/http_address.h"

#include <charconv>

namespace muselet {

Result<HttpAddress> ParseHttpAddress(const std::string& text, const std::string& option) {
  const Status fault = InvalidArgument("\"" + text + "\" is not an address: give " + option +
                                       " HOST:PORT, for example 127.0.0.1:8000 or [::1]:8000");
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return fault;
  HttpAddress address;
  address.host = text.substr(0, colon);
  if (address.host.front() == '[') {
    if (address.host.size() < 3 || address.host.back() != ']') return fault;
    address.host = address.host.substr(1, address.host.size() - 2);
  } else if (address.host.find(':') != std::string::npos) {
    return fault;
  }
  const char* begin = text.data() + colon + 1;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(begin, end, address.port);
  if (begin == end || parsed.ec != std::errc() || parsed.ptr != end) return fault;
  return address;
}

}  // namespace muselet
