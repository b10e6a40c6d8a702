// A client for a muselet gateway's RPC: ask a model, stream its answer. One header, one library;
// needs libzmq and protobuf only, and no other header of muselet.
//
//   muselet::client::Client client("tcp://127.0.0.1:5556");
//   muselet::client::Request request;
//   request.messages = {{"user", "What is a muse?"}};
//   auto answer = client.Generate(request, [](const muselet::client::Chunk& chunk) {
//     std::fputs(chunk.text.c_str(), stdout);
//     return true;  // false cancels
//   });
//   if (!answer.error.ok()) ...
//
// Calls block. A Client belongs to one thread at a time; make one per thread, they are cheap. It
// reconnects by itself. While a call waits it pings the gateway; a gateway that does not answer for
// the silence limit fails the call with "unavailable". No call throws.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace muselet::client {

// How a call failed. `code` is one of invalid_argument, not_found, permission_denied,
// resource_exhausted, unavailable, deadline_exceeded, cancelled, data_loss, internal; empty = it
// did not.
struct Error {
  std::string code;
  std::string message;
  std::string param;           // the request's field at fault, if one is
  int64_t retry_after_ms = 0;  // with resource_exhausted and unavailable
  bool ok() const { return code.empty(); }
};

struct Message {
  std::string role;
  std::string content;
};

// What to generate. Exactly one of messages, text and tokens is the prompt. What is left out is as
// the gateway has it by default.
struct Request {
  std::string model;  // "" = the only one that the gateway serves
  std::vector<Message> messages;
  std::optional<std::string> text;
  std::vector<int32_t> tokens;

  std::optional<uint32_t> max_tokens;
  std::optional<uint32_t> min_tokens;
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> n;
  std::optional<bool> ignore_eos;
  std::optional<uint32_t> logprobs;  // alternatives per token; 0 = the chosen token's only
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::optional<int64_t> timeout_ms;
};

struct Token {
  int32_t id = 0;
  float logprob = 0.0F;  // with Request::logprobs
  std::vector<std::pair<int32_t, float>> top;
};

// A piece of one of the n answers.
struct Chunk {
  std::string request_id;
  uint32_t choice = 0;
  std::string text;  // valid UTF-8; may be empty
  std::vector<Token> tokens;
  std::string finish_reason;  // of this choice: "stop", "length"; empty while it runs
};

struct Choice {
  std::string text;
  std::vector<Token> tokens;
  std::string finish_reason;
};
struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t generation_tokens = 0;
  uint32_t cached_prompt_tokens = 0;
};
// The whole answer, or as much of it as came before the error.
struct Answer {
  Error error;
  std::string request_id;
  std::vector<Choice> choices;
  Usage usage;
};

struct Model {
  std::string id;
  uint32_t context_tokens = 0;
  uint32_t replicas_ready = 0;
};
struct Models {
  Error error;
  std::vector<Model> models;
};
struct Health {
  Error error;
  bool ready = false;
  std::string detail;  // what is missing
};

struct Options {
  std::string api_key;
  // For a gateway whose wires are secured: its public key, and the secret key of this front end,
  // whose public one the gateway must know; both as muselet keys generate writes them.
  std::string server_key;
  std::string secret_key;
  int64_t silence_max_ms = 5000;  // of the gateway, pings unanswered
  int64_t ping_interval_ms = 500;
};

class Client {
 public:
  // Connects in the background: a gateway that is away shows in the first call. A bad endpoint
  // shows there too, as invalid_argument.
  explicit Client(const std::string& endpoint, Options options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  // `on_chunk` is called for each piece as it comes, on the calling thread; returning false cancels
  // the request, and the answer's error is "cancelled". It may be empty.
  Answer Generate(const Request& request, const std::function<bool(const Chunk&)>& on_chunk = {});
  Models ListModels();
  Health CheckHealth();

 private:
  class Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace muselet::client
