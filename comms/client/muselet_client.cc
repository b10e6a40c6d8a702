#include "comms/client/muselet_client.h"

#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "frontend.pb.h"

namespace muselet::client {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int kLingerMs = 500;
constexpr uint64_t kPingCallId = 0;  // no other call has it

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             SteadyClock::now().time_since_epoch())
      .count();
}

Error Fault(std::string code, std::string message) {
  return {std::move(code), std::move(message), "", 0};
}

void WritePrompt(const Request& request, v1::GenerateRequest& out) {
  if (request.text) {
    out.set_text(*request.text);
  } else if (!request.tokens.empty()) {
    out.mutable_tokens()->mutable_ids()->Add(request.tokens.begin(), request.tokens.end());
  } else {
    for (const Message& message : request.messages) {
      v1::ChatMessage& turn = *out.mutable_chat()->add_messages();
      turn.set_role(message.role);
      turn.set_content(message.content);
    }
  }
}

void WriteGenerate(const Request& request, v1::GenerateRequest& out) {
  out.set_model(request.model);
  WritePrompt(request, out);
  if (request.max_tokens) out.set_max_tokens(*request.max_tokens);
  if (request.min_tokens) out.set_min_tokens(*request.min_tokens);
  if (request.temperature) out.set_temperature(*request.temperature);
  if (request.top_k) out.set_top_k(*request.top_k);
  if (request.top_p) out.set_top_p(*request.top_p);
  if (request.min_p) out.set_min_p(*request.min_p);
  if (request.repetition_penalty) out.set_repetition_penalty(*request.repetition_penalty);
  if (request.presence_penalty) out.set_presence_penalty(*request.presence_penalty);
  if (request.frequency_penalty) out.set_frequency_penalty(*request.frequency_penalty);
  if (request.seed) out.set_seed(*request.seed);
  if (request.n) out.set_n(*request.n);
  if (request.ignore_eos) out.set_ignore_eos(*request.ignore_eos);
  if (request.logprobs) out.set_logprobs(*request.logprobs);
  if (request.timeout_ms) out.set_timeout_ms(*request.timeout_ms);
  for (const std::string& stop : request.stop) out.add_stop(stop);
  for (const int32_t id : request.stop_token_ids) out.add_stop_token_ids(id);
  for (const auto& [id, bias] : request.logit_bias) {
    v1::LogitBias& entry = *out.add_logit_bias();
    entry.set_id(id);
    entry.set_bias(bias);
  }
}

Chunk ReadChunk(const v1::GenerateChunk& in) {
  Chunk chunk;
  chunk.request_id = in.request_id();
  chunk.choice = in.choice();
  chunk.text = in.text();
  chunk.finish_reason = in.finish_reason();
  for (const v1::TokenInfo& info : in.tokens()) {
    Token token{info.id(), info.logprob(), {}};
    for (const v1::TokenLogprob& top : info.top()) token.top.emplace_back(top.id(), top.logprob());
    chunk.tokens.push_back(std::move(token));
  }
  return chunk;
}

// A gateway's choice numbers are below n; anything else is not stored.
void Append(const Chunk& chunk, Answer& answer) {
  if (chunk.choice >= answer.choices.size()) return;
  Choice& choice = answer.choices[chunk.choice];
  choice.text += chunk.text;
  choice.tokens.insert(choice.tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
  if (!chunk.finish_reason.empty()) choice.finish_reason = chunk.finish_reason;
}

}  // namespace

class Client::Connection {
 public:
  Connection(std::string endpoint, Options options)
      : endpoint_(std::move(endpoint)), options_(std::move(options)) {
    context_ = zmq_ctx_new();
    socket_ = zmq_socket(context_, ZMQ_DEALER);
    zmq_setsockopt(socket_, ZMQ_LINGER, &kLingerMs, sizeof(kLingerMs));
    connected_ = SetKeys() && zmq_connect(socket_, endpoint_.c_str()) == 0;
  }
  ~Connection() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends `request` under a fresh call id and gives every response of it to `on_response`, until
  // the last one or until it returns false.
  Error Call(v1::Request& request, const std::function<bool(const v1::Response&)>& on_response) {
    if (!connected_) return Fault("invalid_argument", ConnectFault());
    const uint64_t call_id = ++last_call_id_;
    request.set_call_id(call_id);
    if (!Send(request)) return Unreachable();
    heard_ms_ = NowMs();
    pinged_ms_ = heard_ms_;
    for (;;) {
      v1::Response response;
      switch (Receive(response)) {
        case Received::kNothing:
          if (NowMs() - heard_ms_ > options_.silence_max_ms) return Unreachable();
          Ping();
          continue;
        case Received::kBroken:
          return Fault("internal", "receiving failed: " + std::string(zmq_strerror(zmq_errno())));
        case Received::kMessage:
          break;
      }
      Ping();
      if (response.call_id() != call_id || response.has_ping()) continue;
      if (response.has_error()) {
        const v1::Error& error = response.error();
        return {error.code(), error.message(), error.param(), error.retry_after_ms()};
      }
      if (!on_response(response)) {
        Cancel(call_id);
        return Fault("cancelled", "cancelled by the caller");
      }
      if (response.final()) return {};
    }
  }

 private:
  // False for keys that are none.
  bool SetKeys() {
    if (options_.server_key.empty()) return true;
    char own[41];
    keys_ok_ = options_.server_key.size() == 40 && options_.secret_key.size() == 40 &&
               zmq_curve_public(own, options_.secret_key.c_str()) == 0 &&
               zmq_setsockopt(socket_, ZMQ_CURVE_PUBLICKEY, own, sizeof(own)) == 0 &&
               zmq_setsockopt(socket_, ZMQ_CURVE_SECRETKEY, options_.secret_key.c_str(), 41) == 0 &&
               zmq_setsockopt(socket_, ZMQ_CURVE_SERVERKEY, options_.server_key.c_str(), 41) == 0;
    return keys_ok_;
  }

  std::string ConnectFault() const {
    return keys_ok_ ? endpoint_ + " is no endpoint to connect to"
                    : "server_key and secret_key must be keys of muselet keys generate";
  }

  enum class Received { kMessage, kNothing, kBroken };

  Error Unreachable() const {
    return Fault("unavailable", "the gateway at " + endpoint_ + " does not answer");
  }

  bool Send(v1::Request& request) {
    request.set_version(1);
    request.set_api_key(options_.api_key);
    const std::string bytes = request.SerializeAsString();
    return zmq_send(socket_, bytes.data(), bytes.size(), ZMQ_DONTWAIT) >= 0;
  }

  void Ping() {
    const int64_t now_ms = NowMs();
    if (now_ms - pinged_ms_ < options_.ping_interval_ms) return;
    pinged_ms_ = now_ms;
    v1::Request ping;
    ping.set_call_id(kPingCallId);
    ping.mutable_ping();
    Send(ping);
  }

  void Cancel(uint64_t call_id) {
    v1::Request cancel;
    cancel.set_call_id(++last_call_id_);
    cancel.mutable_cancel()->set_generate_call_id(call_id);
    Send(cancel);
  }

  // Waits for up to a ping interval.
  Received Receive(v1::Response& response) {
    zmq_pollitem_t item = {socket_, 0, ZMQ_POLLIN, 0};
    const int ready = zmq_poll(&item, 1, static_cast<long>(options_.ping_interval_ms));
    if (ready < 0) return zmq_errno() == EINTR ? Received::kNothing : Received::kBroken;
    if (ready == 0) return Received::kNothing;
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    const int size = zmq_msg_recv(&frame, socket_, ZMQ_DONTWAIT);
    const bool parsed = size >= 0 && response.ParseFromArray(zmq_msg_data(&frame), size);
    zmq_msg_close(&frame);
    if (!parsed) return Received::kNothing;
    heard_ms_ = NowMs();
    return Received::kMessage;
  }

  const std::string endpoint_;
  bool keys_ok_ = true;
  const Options options_;
  void* context_ = nullptr;
  void* socket_ = nullptr;
  bool connected_ = false;
  uint64_t last_call_id_ = kPingCallId;
  int64_t heard_ms_ = 0;
  int64_t pinged_ms_ = 0;
};

Client::Client(const std::string& endpoint, Options options)
    : connection_(std::make_unique<Connection>(endpoint, std::move(options))) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

Answer Client::Generate(const Request& request, const std::function<bool(const Chunk&)>& on_chunk) {
  Answer answer;
  const int prompts = (request.messages.empty() ? 0 : 1) + (request.text ? 1 : 0) +
                      (request.tokens.empty() ? 0 : 1);
  if (prompts != 1) {
    answer.error = Fault("invalid_argument", "set exactly one of messages, text and tokens");
    answer.error.param = "prompt";
    return answer;
  }
  answer.choices.resize(std::min(request.n.value_or(1), 1024U));
  v1::Request call;
  WriteGenerate(request, *call.mutable_generate());
  answer.error = connection_->Call(call, [&](const v1::Response& response) {
    if (!response.has_chunk()) return true;
    const Chunk chunk = ReadChunk(response.chunk());
    answer.request_id = chunk.request_id;
    if (response.chunk().has_usage()) {
      const v1::Usage& usage = response.chunk().usage();
      answer.usage = {usage.prompt_tokens(), usage.generation_tokens(),
                      usage.cached_prompt_tokens()};
      return true;
    }
    Append(chunk, answer);
    return !on_chunk || on_chunk(chunk);
  });
  return answer;
}

Models Client::ListModels() {
  Models result;
  v1::Request call;
  call.mutable_models();
  result.error = connection_->Call(call, [&](const v1::Response& response) {
    for (const auto& model : response.models().models())
      result.models.push_back({model.id(), model.context_tokens(), model.replicas_ready()});
    return true;
  });
  return result;
}

Health Client::CheckHealth() {
  Health result;
  v1::Request call;
  call.mutable_health();
  result.error = connection_->Call(call, [&](const v1::Response& response) {
    result.ready = response.health().ready();
    result.detail = response.health().detail();
    return true;
  });
  return result;
}

}  // namespace muselet::client
