#include "node/gateway/rpc_server.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "frontend.pb.h"
#include "node/gateway/rpc_messages.h"

namespace muselet {
namespace {

constexpr uint32_t kVersion = 1;
constexpr size_t kUnsentMax = 4096;
constexpr int64_t kUnsentKeptUs = 30'000'000;
constexpr int64_t kUnsentKeptDrainingUs = 1'000'000;

Status Draining() {
  return Unavailable("draining: this gateway stops and takes no new calls; ask another one");
}

}  // namespace

// Turns what the service tells of one call into messages to its client. The server outlives it as
// far as callbacks go: it cancels all calls when it ends.
class RpcServer::CallSink final : public GenerationSink {
 public:
  // `origin`: of the call, if it can be resumed.
  CallSink(RpcServer& server, RawPeer peer, uint64_t call_id, bool with_logprobs, uint32_t choices,
           std::optional<RequestOrigin> origin)
      : server_(server),
        peer_(std::move(peer)),
        call_id_(call_id),
        with_logprobs_(with_logprobs),
        choices_(choices),
        origin_(std::move(origin)) {}

  // By now the number of choices has been checked.
  void OnStart(const GenerationStart& start) override {
    request_id_ = start.request.ToString();
    if (origin_) points_ = origin_->resume;
    points_.resize(choices_);
  }

  void OnUpdate(const ChoiceUpdate& update) override {
    ResumePoint& point = points_[update.choice];
    if (!update.text_seen) point.tokens += static_cast<uint32_t>(update.tokens.size());
    const bool ends = update.finish != FinishReason::kNone && !update.finish_seen;
    if (ends) point.stage = ResumePoint::Stage::kFinished;
    if (update.text_seen && !ends) return;
    v1::Response response;
    response.set_call_id(call_id_);
    v1::GenerateChunk& chunk = *response.mutable_chunk();
    WriteUpdate(update, request_id_, with_logprobs_, chunk);
    if (update.text_seen) {
      chunk.clear_text();
      chunk.clear_tokens();
    }
    if (origin_) {
      chunk.set_event_id(origin_->token);
      AppendPosition(points_, *chunk.mutable_event_id());
    }
    server_.Answer(peer_, response);
  }

  void OnDone(const GenerationUsage& usage) override {
    v1::Response response;
    response.set_call_id(call_id_);
    response.set_final(true);
    v1::GenerateChunk& chunk = *response.mutable_chunk();
    chunk.set_request_id(request_id_);
    chunk.mutable_usage()->set_prompt_tokens(usage.prompt_tokens);
    chunk.mutable_usage()->set_generation_tokens(usage.generation_tokens);
    chunk.mutable_usage()->set_cached_prompt_tokens(usage.cached_prompt_tokens);
    server_.CloseCall(peer_, call_id_);
    server_.Answer(peer_, response);
  }

  void OnError(const GenerationError& error) override {
    v1::Response response;
    response.set_call_id(call_id_);
    WriteError(error, response);
    server_.CloseCall(peer_, call_id_);
    server_.Answer(peer_, response);
  }

 private:
  RpcServer& server_;
  const RawPeer peer_;
  const uint64_t call_id_;
  const bool with_logprobs_;
  const uint32_t choices_;
  const std::optional<RequestOrigin> origin_;
  std::vector<ResumePoint> points_;  // by choice: what has been sent
  std::string request_id_;
};

RpcServer::RpcServer(RpcServerOptions options, GenerationService& service, EventLoop& loop)
    : options_(std::move(options)), service_(service), loop_(loop) {}

Result<std::unique_ptr<RpcServer>> RpcServer::Start(RpcServerOptions options,
                                                    GenerationService& service, EventLoop& loop,
                                                    WireContext& context) {
  std::unique_ptr<RpcServer> server(new RpcServer(std::move(options), service, loop));
  RpcServer* raw = server.get();
  WireLimits limits;
  limits.message_bytes_max = server->options_.message_bytes_max;
  limits.queue_messages_max = server->options_.queue_messages_max;
  ASSIGN_OR_RETURN(server->router_,
                   RawRouter::Bind(
                       loop, context, server->options_.endpoint,
                       [raw](const RawPeer& peer, std::string body) { raw->OnMessage(peer, body); },
                       limits, WireAudience::kFrontEnds));
  server->timer_ = std::make_unique<PeriodicTimer>(
      loop, std::max<int64_t>(1, server->options_.client_timeout_us / 4), [raw] {
        raw->DropSilentClients();
        raw->RetryUnsent();
        raw->FinishDrain();
      });
  return server;
}

RpcServer::~RpcServer() {
  for (const auto& [peer, client] : clients_) {
    for (const auto& [call_id, call] : client.calls) service_.Cancel(call.request);
  }
}

size_t RpcServer::open_calls() const {
  size_t count = 0;
  for (const auto& [peer, client] : clients_) count += client.calls.size();
  return count;
}

void RpcServer::Drain(std::function<void()> drained) {
  draining_ = true;
  drained_ = std::move(drained);
  FinishDrain();
}

// The last word of a call may still wait for its client to read.
void RpcServer::FinishDrain() {
  if (drained_ && clients_.empty() && unsent_.empty()) loop_.Post(std::exchange(drained_, nullptr));
}

void RpcServer::OnMessage(const RawPeer& peer, const std::string& body) {
  const auto known = clients_.find(peer.id);
  if (known != clients_.end()) known->second.heard_us = loop_.NowUs();
  v1::Request request;
  if (!request.ParseFromString(body)) {
    Refuse(peer, 0, InvalidArgument("the message is no muselet.v1.Request"));
  } else if (request.version() != kVersion) {
    Refuse(peer, request.call_id(),
           InvalidArgument("version " + std::to_string(request.version()) +
                           " is not spoken here; this gateway speaks 1"),
           "version");
  } else {
    OnRequest(peer, request);
  }
}

void RpcServer::OnRequest(const RawPeer& peer, const v1::Request& request) {
  using Kind = v1::Request::CallCase;
  const uint64_t call_id = request.call_id();
  if (request.call_case() == Kind::kPing) {
    v1::Response response;
    response.set_call_id(call_id);
    response.set_final(true);
    response.mutable_ping();
    return Answer(peer, response);
  }
  if (request.call_case() == Kind::kHealth) return AnswerHealth(peer, call_id);
  // All else is closed without a key that is known.
  const Result<RpcCaller> caller = options_.authorize(request.api_key());
  if (!caller.ok()) return Refuse(peer, call_id, caller.status(), "api_key");
  switch (request.call_case()) {
    case Kind::kGenerate:
      return OnGenerate(peer, call_id, *caller, request.generate());
    case Kind::kCancel:
      return OnCancel(peer, call_id, request.cancel().generate_call_id());
    case Kind::kModels:
      return AnswerModels(peer, call_id);
    default:
      return Refuse(peer, call_id,
                    InvalidArgument("the request holds no call that this gateway knows"), "call");
  }
}

void RpcServer::OnGenerate(const RawPeer& peer, uint64_t call_id, const RpcCaller& caller,
                           const v1::GenerateRequest& message) {
  if (draining_) return Refuse(peer, call_id, Draining());
  const auto client = clients_.find(peer.id);
  if (client != clients_.end()) {
    if (client->second.calls.count(call_id) > 0)
      return Refuse(peer, call_id, InvalidArgument("call_id is that of an open call"), "call_id");
    if (client->second.calls.size() >= options_.calls_max)
      return Refuse(peer, call_id,
                    ResourceExhausted("this client has " + std::to_string(options_.calls_max) +
                                      " open calls; wait for one to end"));
  }
  std::string param;
  Result<RpcGenerate> read = ReadGenerate(message, param);
  if (!read.ok()) return Refuse(peer, call_id, read.status(), param);
  GenerationRequest& request = read->request;
  request.surface = caller.surface;
  request.request_class = caller.request_class;
  if (request.model.empty()) {
    const std::vector<ServedModel> models = service_.Models();
    if (models.size() != 1)
      return Refuse(peer, call_id, InvalidArgument("model is missing, and there are several"),
                    "model");
    request.model = models[0].id;
  }
  std::optional<RequestOrigin> origin;
  if (options_.origins) {
    auto opened = OpenOrigin(caller, message);
    if (const auto* fault = std::get_if<GenerationError>(&opened))
      return Refuse(peer, call_id, *fault);
    origin = std::get<RequestOrigin>(std::move(opened));
    request.fixed = options_.origins->PartsOf(*origin, 0);
    request.resume = origin->resume;
  }
  const uint32_t choices = request.choices;
  const RequestId id = service_.Start(
      std::move(request), std::make_unique<CallSink>(*this, peer, call_id, read->wants_logprobs,
                                                     choices, std::move(origin)));
  Client& entry = clients_[peer.id];
  entry.peer = peer;
  entry.heard_us = loop_.NowUs();
  entry.calls[call_id] = {id};
}

std::variant<RequestOrigin, GenerationError> RpcServer::OpenOrigin(
    const RpcCaller& caller, v1::GenerateRequest message) const {
  const std::string key = std::move(*message.mutable_idempotency_key());
  const std::string event_id = std::move(*message.mutable_last_event_id());
  message.clear_idempotency_key();
  message.clear_last_event_id();
  const std::string body = message.SerializeAsString();
  RequestClaim claim;
  claim.surface = caller.surface;
  claim.key = key;
  claim.event_id = event_id;
  claim.kind = "rpc";
  claim.body = body;
  return options_.origins->Open(claim, Clock::Real().UnixUs());
}

void RpcServer::OnCancel(const RawPeer& peer, uint64_t call_id, uint64_t generate_call_id) {
  const auto client = clients_.find(peer.id);
  const bool open = client != clients_.end() && client->second.calls.count(generate_call_id) > 0;
  if (open) {
    service_.Cancel(client->second.calls.at(generate_call_id).request);
    CloseCall(peer, generate_call_id);
    v1::Response ended;
    ended.set_call_id(generate_call_id);
    WriteError({Cancelled("the call was cancelled by its client"), "", 0}, ended);
    Answer(peer, ended);
  }
  // A call that has ended meanwhile was cancelled just as well.
  v1::Response response;
  response.set_call_id(call_id);
  response.set_final(true);
  Answer(peer, response);
}

void RpcServer::AnswerModels(const RawPeer& peer, uint64_t call_id) {
  v1::Response response;
  response.set_call_id(call_id);
  response.set_final(true);
  v1::ModelsResponse& models = *response.mutable_models();
  for (const ServedModel& served : service_.Models()) {
    auto& model = *models.add_models();
    model.set_id(served.id);
    model.set_context_tokens(served.context_tokens);
    model.set_replicas_ready(served.replicas_ready);
  }
  Answer(peer, response);
}

void RpcServer::AnswerHealth(const RawPeer& peer, uint64_t call_id) {
  const Status ready = draining_ ? Draining() : service_.Ready();
  v1::Response response;
  response.set_call_id(call_id);
  response.set_final(true);
  response.mutable_health()->set_ready(ready.ok());
  response.mutable_health()->set_detail(ready.message());
  Answer(peer, response);
}

void RpcServer::Refuse(const RawPeer& peer, uint64_t call_id, Status status, std::string param) {
  Refuse(peer, call_id, GenerationError{std::move(status), std::move(param), 0});
}

void RpcServer::Refuse(const RawPeer& peer, uint64_t call_id, const GenerationError& error) {
  v1::Response response;
  response.set_call_id(call_id);
  WriteError(error, response);
  Answer(peer, response);
}

void RpcServer::Answer(const RawPeer& peer, v1::Response& response) {
  response.set_version(kVersion);
  std::string message = response.SerializeAsString();
  const Status sent = router_->Send(peer, message);
  if (sent.ok()) return;
  const bool full = sent.code() == StatusCode::kResourceExhausted;
  if (full && response.final() && !response.has_ping()) KeepUnsent(peer, std::move(message));
  DropClient(peer.id, full ? ResourceExhausted("the client does not read fast enough") : sent);
}

void RpcServer::KeepUnsent(const RawPeer& peer, std::string message) {
  if (unsent_.size() >= kUnsentMax) unsent_.pop_front();
  unsent_.push_back({peer, std::move(message), loop_.NowUs()});
}

void RpcServer::RetryUnsent() {
  for (std::deque<Unsent> left = std::exchange(unsent_, {}); !left.empty(); left.pop_front()) {
    Unsent& unsent = left.front();
    const Status sent = router_->Send(unsent.peer, unsent.message);
    const int64_t kept_us = draining_ ? kUnsentKeptDrainingUs : kUnsentKeptUs;
    const bool again =
        sent.code() == StatusCode::kResourceExhausted && loop_.NowUs() - unsent.since_us < kept_us;
    if (again) unsent_.push_back(std::move(unsent));
  }
}

void RpcServer::CloseCall(const RawPeer& peer, uint64_t call_id) {
  const auto client = clients_.find(peer.id);
  if (client == clients_.end()) return;
  client->second.calls.erase(call_id);
  if (client->second.calls.empty()) clients_.erase(client);
  FinishDrain();
}

void RpcServer::DropClient(const std::string& peer, const Status& why) {
  const auto found = clients_.find(peer);
  if (found == clients_.end()) return;
  const Client client = std::move(found->second);
  clients_.erase(found);
  for (const auto& [call_id, call] : client.calls) {
    service_.Cancel(call.request);
    v1::Response ended;
    ended.set_version(kVersion);
    ended.set_call_id(call_id);
    WriteError({why, "", 0}, ended);
    KeepUnsent(client.peer, ended.SerializeAsString());
  }
  FinishDrain();
}

void RpcServer::DropSilentClients() {
  const int64_t silent_since_us = loop_.NowUs() - options_.client_timeout_us;
  std::vector<std::string> gone;
  for (const auto& [peer, client] : clients_) {
    if (client.heard_us < silent_since_us) gone.push_back(peer);
  }
  for (const std::string& peer : gone)
    DropClient(peer, DeadlineExceeded("the client was silent for too long: send Ping"));
}

}  // namespace muselet
