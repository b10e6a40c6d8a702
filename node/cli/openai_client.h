// The OpenAI HTTP API as a client sees it: request bodies, streamed answers, faults. No I/O.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "node/cli/http_client.h"
#include "node/cli/sse_reader.h"

namespace muselet {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct CompletionParams {
  std::string model;
  std::vector<ChatMessage> messages;  // for /chat/completions, or
  std::string prompt;                 // for /completions, if there are no messages
  uint32_t max_tokens = 0;            // 0 = not said
  std::optional<double> temperature;
  std::optional<uint64_t> seed;
  bool ignore_eos = false;
};

// Where the API of a server begins: the URL's path, with /v1 unless it ends in it.
std::string ApiBase(const HttpUrl& url);

// A streamed request, with usage at its end. `api_key` may be empty.
HttpRequest MakeCompletionRequest(const std::string& api_base, const std::string& api_key,
                                  const CompletionParams& params);

// The model to ask: `wanted`, or the first that the server lists. kUnavailable if no server
// answers, kPermissionDenied for a key that is missing or wrong. Runs `client`.
Result<std::string> ChooseModel(HttpClient& client, const std::string& api_base,
                                const std::string& api_key, const std::string& wanted);

// The message in an error body of any of the usual shapes; or "HTTP 500" and the like.
std::string ErrorMessage(int status_code, const std::string& body);

// Reads one streamed answer.
class CompletionReader {
 public:
  // `on_text` is called for each piece of text that is not empty.
  explicit CompletionReader(std::function<void(std::string_view text)> on_text)
      : on_text_(std::move(on_text)) {}

  void OnHead(int status_code) { status_code_ = status_code; }
  void OnBody(std::string_view bytes);

  // OK if the answer is whole: status 200, no error event, and its end was seen.
  Status Outcome() const;

  int status_code() const { return status_code_; }
  uint32_t pieces() const { return pieces_; }  // with text
  bool has_usage() const { return has_usage_; }
  uint32_t prompt_tokens() const { return prompt_tokens_; }
  // As the server counts, or else the number of pieces.
  uint32_t output_tokens() const { return has_usage_ ? completion_tokens_ : pieces_; }
  const std::string& finish_reason() const { return finish_reason_; }

 private:
  void OnEvent(std::string_view data);

  std::function<void(std::string_view text)> on_text_;
  SseReader events_;
  int status_code_ = 0;
  std::string error_body_;
  Status fault_;
  bool done_ = false;
  uint32_t pieces_ = 0;
  bool has_usage_ = false;
  uint32_t prompt_tokens_ = 0;
  uint32_t completion_tokens_ = 0;
  std::string finish_reason_;
};

}  // namespace muselet
