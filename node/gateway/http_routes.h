// Which handler answers which method and path. A route is denied unless it is open or the server's
// authorizer lets the request in.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "node/gateway/http_message.h"

namespace muselet {

using HttpHandler = std::function<void(HttpRequest& request, HttpExchangePtr exchange)>;

struct HttpRoute {
  std::string method;  // GET also answers HEAD
  std::string path;    // exact, or ending in "/*": the non-empty rest is HttpRequest::parameter
  bool open = false;   // answered to everybody
  HttpHandler handler;
};

class HttpRoutes {
 public:
  void Add(HttpRoute route) { routes_.push_back(std::move(route)); }

  struct Match {
    const HttpRoute* route = nullptr;  // null: see allowed
    std::string parameter;
    std::string allowed;  // methods that this path knows, "GET, HEAD"; empty = no such path
  };
  Match Find(std::string_view method, std::string_view path) const;

 private:
  std::vector<HttpRoute> routes_;
};

}  // namespace muselet
