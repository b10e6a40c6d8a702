#include "node/gateway/http_routes.h"

namespace muselet {
namespace {

bool PathMatches(const HttpRoute& route, std::string_view path, std::string& parameter) {
  parameter.clear();
  if (!route.path.ends_with("/*")) return route.path == path;
  const std::string_view prefix(route.path.data(), route.path.size() - 1);
  if (!path.starts_with(prefix) || path.size() == prefix.size()) return false;
  parameter = path.substr(prefix.size());
  return true;
}

}  // namespace

HttpRoutes::Match HttpRoutes::Find(std::string_view method, std::string_view path) const {
  Match match;
  for (const HttpRoute& route : routes_) {
    std::string parameter;
    if (!PathMatches(route, path, parameter)) continue;
    if (!match.allowed.empty()) match.allowed += ", ";
    match.allowed += route.method;
    if (route.method == "GET") match.allowed += ", HEAD";
    if (route.method == method || (route.method == "GET" && method == "HEAD")) {
      match.route = &route;
      match.parameter = std::move(parameter);
      return match;
    }
  }
  if (!match.allowed.empty()) match.allowed += ", OPTIONS";
  return match;
}

}  // namespace muselet
