#include "node/config/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace muselet {
namespace {

constexpr std::string_view kTcp = "tcp://";
constexpr std::string_view kInproc = "inproc://";
constexpr size_t kNameMax = 200;

bool IsIpv4(const std::string& host, in_addr* address) {
  return inet_pton(AF_INET, host.c_str(), address) == 1;
}
bool IsIpv6(const std::string& host) {
  in6_addr address{};
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

bool IsDnsName(std::string_view host) {
  const auto is_letter = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_';
  };
  return host.size() <= kNameMax && std::all_of(host.begin(), host.end(), is_letter);
}

bool LooksLikeIpv4(std::string_view host) {
  return std::all_of(host.begin(), host.end(),
                     [](char c) { return c == '.' || (c >= '0' && c <= '9'); });
}

Result<uint16_t> ParsePort(std::string_view text) {
  unsigned port = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (fault != std::errc() || end != text.data() + text.size() || port > 65535) {
    return InvalidArgument("the port must be a number from 0 to 65535");
  }
  return static_cast<uint16_t>(port);
}

}  // namespace

Status CheckHost(std::string_view host) {
  const std::string text(host);
  in_addr address{};
  if (host.empty()) return InvalidArgument("the host is missing");
  if (IsIpv4(text, &address) || IsIpv6(text)) return OkStatus();
  if (LooksLikeIpv4(host)) return InvalidArgument("not an IPv4 address");
  if (!IsDnsName(host)) return InvalidArgument("neither an IP address nor a host name");
  return OkStatus();
}

Result<HostPort> ParseHostPort(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return InvalidArgument("the port is missing");
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (!bracketed && host.find(':') != std::string_view::npos) {
    return InvalidArgument("an IPv6 address needs brackets, as in [::1]:8000");
  }
  RETURN_IF_ERROR(CheckHost(host));
  HostPort parsed;
  ASSIGN_OR_RETURN(parsed.port, ParsePort(text.substr(colon + 1)));
  parsed.host = std::string(host);
  return parsed;
}

bool IsInproc(std::string_view endpoint) {
  return endpoint.substr(0, kInproc.size()) == kInproc;
}

Status CheckEndpoint(std::string_view text) {
  if (IsInproc(text)) {
    const size_t length = text.size() - kInproc.size();
    if (length == 0 || length > kNameMax) return InvalidArgument("inproc:// needs a name");
    return OkStatus();
  }
  if (text.substr(0, kTcp.size()) != kTcp) {
    return InvalidArgument("must begin with tcp:// or inproc://");
  }
  return ParseHostPort(text.substr(kTcp.size())).status();
}

}  // namespace muselet
