#include "node/gateway/http_gateway.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "node/gateway/api_keys.h"
#include "node/gateway/openai_answer.h"
#include "node/gateway/openai_request.h"
#include "node/gateway/openai_tokenize.h"
#include "node/gateway/quota_board.h"

namespace muselet {
namespace {

constexpr int64_t kTimeoutMsMax = 86'400'000;
constexpr int64_t kDrainRetryUs = 1'000'000;

Status Draining() {
  return Unavailable("draining: this gateway stops and takes no new requests; ask another one");
}

HttpResponse JsonResponse(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  return response;
}

// "Bearer KEY", the scheme in any case; vLLM's and OpenAI's way. x-api-key is Anthropic's.
std::string_view PresentedKey(const HttpRequest& request) {
  std::string_view value = request.Header("authorization");
  constexpr std::string_view kScheme = "bearer ";
  if (value.size() <= kScheme.size()) return request.Header("x-api-key");
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = value[i] >= 'A' && value[i] <= 'Z' ? static_cast<char>(value[i] + 32) : value[i];
    if (c != kScheme[i]) return {};
  }
  value.remove_prefix(kScheme.size());
  value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
  return value;
}

HttpResponse NoKey(bool presented) {
  HttpResponse response = HttpError(
      401,
      presented ? "Incorrect API key provided."
                : "You didn't provide an API key. Send it as Authorization: Bearer YOUR_KEY.",
      {}, "invalid_api_key");
  response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace

struct HttpGateway::Api {
  HttpGatewayOptions options;
  GenerationService& service;
  EventLoop& loop;
  const GatewayMetrics& metrics;
  ApiKeys keys;
  int64_t started_unix_s = Clock::Real().UnixUs() / 1'000'000;
  std::unique_ptr<HttpServer> server;
  bool draining = false;

  Status LoadKeys();
  HttpRoutes Routes(const MetricRegistry& registry);
  std::optional<HttpResponse> Authorize(HttpRequest& request) const;

  // The model that a request means; 404 with the served ones named.
  std::optional<ApiError> FindModel(const std::string& id, ServedModel& out) const;
  std::optional<ApiError> ReadTimeout(const HttpRequest& request, GenerationRequest& out) const;
  std::optional<ApiError> Prepare(OpenAiEndpoint endpoint, const HttpRequest& request,
                                  OpenAiRequest& out) const;
  std::optional<ApiError> OpenOrigin(const HttpRequest& request, OpenAiRequest& out) const;
  void Decorate(const HttpRequest& request, HttpHeaders& headers) const;
  void Generate(OpenAiEndpoint endpoint, HttpRequest& request, HttpExchangePtr exchange);
  void Tokenize(const HttpRequest& request, HttpExchangePtr exchange);
  void Detokenize(const HttpRequest& request, HttpExchangePtr exchange);
  void AppendModel(const ServedModel& model, std::string& out) const;
  void ListModels(HttpExchangePtr exchange) const;
  void ShowModel(const std::string& id, HttpExchangePtr exchange) const;
};

Status HttpGateway::Api::LoadKeys() {
  if (options.surfaces.empty()) options.surfaces.emplace_back();
  for (size_t i = 0; i < options.surfaces.size(); ++i) {
    const HttpSurface& surface = options.surfaces[i];
    if (!surface.key_file.empty())
      RETURN_IF_ERROR(
          keys.AddFile(surface.key_file, i).WithContext("keys of surface " + surface.name));
  }
  for (const HttpSurface& surface : options.surfaces) {
    if (!keys.empty() && surface.key_file.empty())
      LogWarn("surface has no key_file while others have: HTTP requests cannot reach it",
              {{"surface", surface.name}});
  }
  return OkStatus();
}

std::optional<HttpResponse> HttpGateway::Api::Authorize(HttpRequest& request) const {
  if (keys.empty()) return std::nullopt;
  const std::string_view key = PresentedKey(request);
  const std::optional<size_t> surface = keys.Find(key);
  if (!surface.has_value()) return NoKey(!key.empty());
  request.principal = *surface;
  return std::nullopt;
}

std::optional<ApiError> HttpGateway::Api::FindModel(const std::string& id, ServedModel& out) const {
  const std::vector<ServedModel> models = service.Models();
  std::string known;
  for (const ServedModel& model : models) {
    if (model.id == id || (id.empty() && models.size() == 1)) {
      out = model;
      return std::nullopt;
    }
    known += (known.empty() ? "" : ", ") + model.id;
  }
  if (id.empty()) return FieldError("model", "model is missing: it may be " + known);
  ApiError error =
      ErrorOf(NotFound("The model `" + id + "` does not exist. Served: " + known + "."), "model");
  return error;
}

std::optional<ApiError> HttpGateway::Api::ReadTimeout(const HttpRequest& request,
                                                      GenerationRequest& out) const {
  const std::string_view text = request.Header("x-request-timeout-ms");
  if (text.empty()) return std::nullopt;
  int64_t ms = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), ms);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || ms < 1 ||
      ms > kTimeoutMsMax)
    return FieldError("X-Request-Timeout-Ms", "X-Request-Timeout-Ms must be between 1 and " +
                                                  std::to_string(kTimeoutMsMax));
  const int64_t us = ms * 1000;
  out.timeout_us = out.timeout_us == 0 ? us : std::min(out.timeout_us, us);
  return std::nullopt;
}

std::optional<ApiError> HttpGateway::Api::Prepare(OpenAiEndpoint endpoint,
                                                  const HttpRequest& request,
                                                  OpenAiRequest& out) const {
  const GatewayOptions& gateway = options.gateway;
  if (auto fault = ParseOpenAiRequest(endpoint, request.body, gateway.request,
                                      gateway.http.json_depth_max, out))
    return fault;
  if (auto fault = ReadTimeout(request, out.generation)) return fault;
  ServedModel model;
  if (auto fault = FindModel(out.generation.model, model)) return fault;
  out.generation.model = model.id;
  const HttpSurface& surface = options.surfaces[request.principal];
  out.generation.surface = surface.name;
  out.generation.request_class = surface.request_class;
  return options.origins ? OpenOrigin(request, out) : std::nullopt;
}

std::optional<ApiError> HttpGateway::Api::OpenOrigin(const HttpRequest& request,
                                                     OpenAiRequest& out) const {
  RequestClaim claim;
  claim.surface = out.generation.surface;
  claim.key = request.Header("idempotency-key");
  if (out.stream) claim.event_id = request.Header("last-event-id");
  claim.kind = request.path;
  claim.body = request.body;
  auto opened = options.origins->Open(claim, Clock::Real().UnixUs());
  if (const auto* fault = std::get_if<GenerationError>(&opened)) return ErrorOf(*fault);
  RequestOrigin& origin = std::get<RequestOrigin>(opened);
  if (!origin.resume.empty() && origin.resume.size() != out.prompts.size() * out.generation.choices)
    return FieldError("Last-Event-ID", "Last-Event-ID is of a stream with other choices");
  for (uint32_t i = 0; i < out.prompts.size(); ++i)
    out.fixed.push_back(options.origins->PartsOf(origin, i));
  out.origin = std::move(origin);
  return std::nullopt;
}

// Whose quotas they are must be known.
void HttpGateway::Api::Decorate(const HttpRequest& request, HttpHeaders& headers) const {
  if (!request.path.starts_with("/v1/")) return;
  const std::optional<size_t> surface =
      keys.empty() ? std::optional<size_t>(0) : keys.Find(PresentedKey(request));
  if (surface) AppendRateLimits(service.Quota(options.surfaces[*surface].name), headers);
}

void HttpGateway::Api::Generate(OpenAiEndpoint endpoint, HttpRequest& request,
                                HttpExchangePtr exchange) {
  if (draining) return exchange->Respond(ResponseOf(ErrorOf(Draining(), {}, kDrainRetryUs)));
  OpenAiRequest parsed;
  if (const auto fault = Prepare(endpoint, request, parsed)) {
    // A name that no model has counts under "unknown".
    const auto& counters = metrics.model(parsed.generation.model);
    counters.requests[static_cast<size_t>(RequestOutcome::kInvalid)].Increment();
    return exchange->Respond(ResponseOf(*fault));
  }
  OpenAiAnswer::Begin(std::move(parsed), std::move(exchange), service, loop);
}

void HttpGateway::Api::Tokenize(const HttpRequest& request, HttpExchangePtr exchange) {
  TokenizeRequest parsed;
  ServedModel model;
  auto fault = ParseTokenizeRequest(request.body, options.gateway.http.json_depth_max, parsed);
  if (!fault) fault = FindModel(parsed.model, model);
  if (fault) return exchange->Respond(ResponseOf(*fault));
  AnswerTokenize(std::move(parsed), model, service, std::move(exchange));
}

void HttpGateway::Api::Detokenize(const HttpRequest& request, HttpExchangePtr exchange) {
  DetokenizeRequest parsed;
  ServedModel model;
  auto fault = ParseDetokenizeRequest(request.body, options.gateway.http.json_depth_max, parsed);
  if (!fault) fault = FindModel(parsed.model, model);
  if (fault) return exchange->Respond(ResponseOf(*fault));
  parsed.model = model.id;
  AnswerDetokenize(std::move(parsed), service, std::move(exchange));
}

void HttpGateway::Api::AppendModel(const ServedModel& model, std::string& out) const {
  out += R"({"id":)";
  AppendJsonString(model.id, out);
  out += R"(,"object":"model","created":)";
  AppendInteger(static_cast<uint64_t>(started_unix_s), out);
  out += R"(,"owned_by":"muselet","root":)";
  AppendJsonString(model.id, out);
  out += R"(,"parent":null,"max_model_len":)";
  AppendInteger(model.context_tokens, out);
  out += '}';
}

void HttpGateway::Api::ListModels(HttpExchangePtr exchange) const {
  std::string body = R"({"object":"list","data":[)";
  bool first = true;
  for (const ServedModel& model : service.Models()) {
    if (!std::exchange(first, false)) body += ',';
    AppendModel(model, body);
  }
  exchange->Respond(JsonResponse(body + "]}"));
}

void HttpGateway::Api::ShowModel(const std::string& id, HttpExchangePtr exchange) const {
  ServedModel model;
  if (const auto fault = FindModel(id, model)) return exchange->Respond(ResponseOf(*fault));
  std::string body;
  AppendModel(model, body);
  exchange->Respond(JsonResponse(std::move(body)));
}

HttpRoutes HttpGateway::Api::Routes(const MetricRegistry& registry) {
  HttpRoutes routes;
  const auto ready = [this] { return service.Ready(); };
  AddProbeRoutes(routes, registry, options.metrics_open, options.live,
                 [this] { return draining ? Draining() : service.Ready(); });
  routes.Add({"GET", "/health", true, HealthHandler(ready)});
  routes.Add({"GET", "/version", true, VersionHandler(options.version)});
  routes.Add({"GET", "/v1/models", false,
              [this](HttpRequest&, HttpExchangePtr exchange) { ListModels(std::move(exchange)); }});
  routes.Add({"GET", "/v1/models/*", false, [this](HttpRequest& request, HttpExchangePtr exchange) {
                ShowModel(request.parameter, std::move(exchange));
              }});
  routes.Add({"POST", "/v1/chat/completions", false,
              [this](HttpRequest& request, HttpExchangePtr exchange) {
                Generate(OpenAiEndpoint::kChat, request, std::move(exchange));
              }});
  routes.Add(
      {"POST", "/v1/completions", false, [this](HttpRequest& request, HttpExchangePtr exchange) {
         Generate(OpenAiEndpoint::kCompletions, request, std::move(exchange));
       }});
  routes.Add({"POST", "/tokenize", false, [this](HttpRequest& request, HttpExchangePtr exchange) {
                Tokenize(request, std::move(exchange));
              }});
  routes.Add({"POST", "/detokenize", false, [this](HttpRequest& request, HttpExchangePtr exchange) {
                Detokenize(request, std::move(exchange));
              }});
  return routes;
}

HttpGateway::HttpGateway(std::unique_ptr<Api> api) : api_(std::move(api)) {}
HttpGateway::~HttpGateway() = default;

Result<std::unique_ptr<HttpGateway>> HttpGateway::Start(HttpGatewayOptions options,
                                                        GenerationService& service, EventLoop& loop,
                                                        const MetricRegistry& registry,
                                                        const GatewayMetrics& metrics) {
  auto api =
      std::unique_ptr<Api>(new Api{std::move(options), service, loop, metrics, {}, 0, nullptr, {}});
  api->started_unix_s = Clock::Real().UnixUs() / 1'000'000;
  RETURN_IF_ERROR(api->LoadKeys());
  HttpServerOptions server_options;
  server_options.address = api->options.address;
  server_options.address_option = api->options.address_option;
  server_options.limits = api->options.gateway.http;
  server_options.authorize = [api = api.get()](HttpRequest& request) {
    return api->Authorize(request);
  };
  server_options.responded = [&metrics](int status) { metrics.http_responses(status).Increment(); };
  server_options.decorate = [api = api.get()](const HttpRequest& request, int,
                                              HttpHeaders& headers) {
    api->Decorate(request, headers);
  };
  server_options.connections_changed = [&metrics](size_t open) {
    metrics.http_connections().Set(static_cast<double>(open));
  };
  ASSIGN_OR_RETURN(api->server,
                   HttpServer::Start(std::move(server_options), api->Routes(registry), loop));
  return std::unique_ptr<HttpGateway>(new HttpGateway(std::move(api)));
}

const std::string& HttpGateway::address() const {
  return api_->server->address();
}

void HttpGateway::Drain(std::function<void()> drained) {
  RefuseGeneration();
  api_->server->Drain(std::move(drained));
}

void HttpGateway::RefuseGeneration() {
  api_->draining = true;
}

}  // namespace muselet
