#include "node/gateway/admin_server.h"

#include "base/json.h"

namespace muselet {
namespace {

HttpResponse HealthResponse(const HealthCallback& health) {
  const Status status = health ? health() : OkStatus();
  HttpResponse response;
  if (status.ok()) {
    response.body = R"({"status":"ok"})";
    return response;
  }
  response.status = 503;
  response.headers.emplace_back("Retry-After", "1");
  response.body = R"({"status":"unavailable","reason":)";
  AppendJsonString(status.message(), response.body);
  response.body += "}";
  return response;
}

}  // namespace

HttpHandler HealthHandler(HealthCallback health) {
  return [health = std::move(health)](HttpRequest&, HttpExchangePtr exchange) {
    exchange->Respond(HealthResponse(health));
  };
}

HttpHandler VersionHandler(const std::string& version) {
  std::string body = R"({"version":)";
  AppendJsonString(version, body);
  body += "}";
  return [body = std::move(body)](HttpRequest&, HttpExchangePtr exchange) {
    HttpResponse response;
    response.body = body;
    exchange->Respond(std::move(response));
  };
}

void AddProbeRoutes(HttpRoutes& routes, const MetricRegistry& registry, bool metrics_open,
                    HealthCallback live, HealthCallback ready) {
  routes.Add({"GET", "/livez", true, HealthHandler(std::move(live))});
  routes.Add({"GET", "/readyz", true, HealthHandler(std::move(ready))});
  routes.Add({"GET", "/metrics", metrics_open, [&registry](HttpRequest&, HttpExchangePtr exchange) {
                HttpResponse response;
                response.content_type = "text/plain; version=0.0.4; charset=utf-8";
                response.body = registry.Text();
                exchange->Respond(std::move(response));
              }});
}

Result<std::unique_ptr<AdminServer>> AdminServer::Start(AdminServerOptions options, EventLoop& loop,
                                                        const MetricRegistry& registry) {
  HttpRoutes routes;
  if (!options.ready) options.ready = options.live;
  AddProbeRoutes(routes, registry, true, std::move(options.live), std::move(options.ready));
  routes.Add({"GET", "/version", true, VersionHandler(options.version)});
  HttpServerOptions server_options;
  server_options.address = std::move(options.address);
  server_options.address_option = std::move(options.address_option);
  server_options.limits.connections_max = 64;
  ASSIGN_OR_RETURN(auto server,
                   HttpServer::Start(std::move(server_options), std::move(routes), loop));
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(server)));
}

}  // namespace muselet
