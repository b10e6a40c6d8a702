// One API answer in the making: starts a generation for each prompt, gathers their updates, and
// writes them to the exchange, whole or as server-sent events. A client that goes away cancels all
// of them at once; a fault of one ends all.
//
// Loop thread only. Kept alive by the sinks that the service holds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "comms/event_loop.h"
#include "node/gateway/generation.h"
#include "node/gateway/http_message.h"
#include "node/gateway/openai_error.h"
#include "node/gateway/openai_request.h"
#include "node/gateway/openai_writer.h"

namespace muselet {

class OpenAiAnswer : public std::enable_shared_from_this<OpenAiAnswer> {
 public:
  // Starts the generations. The service and the loop must outlive the answer.
  static void Begin(OpenAiRequest request, HttpExchangePtr exchange, GenerationService& service,
                    EventLoop& loop);
  virtual ~OpenAiAnswer() = default;

 protected:
  struct Prompt {
    RequestId id;
    bool done = false;
    GenerationStart start;
    GenerationUsage usage;
  };
  // Choice c of prompt p has index p * n + c.
  struct Choice {
    uint32_t index = 0;
    bool begun = false;                  // an update came
    size_t text_offset = 0;              // characters so far, for completions' logprobs
    std::string text;                    // whole answers only, as the rest
    std::vector<GeneratedToken> tokens;  // only if they are shown
    FinishReason finish = FinishReason::kNone;
    std::string stop_string;
    std::optional<TokenId> stop_token;
  };

  OpenAiAnswer(OpenAiRequest request, HttpExchangePtr exchange, GenerationService& service,
               EventLoop& loop);

  virtual void OnChoice(Prompt& prompt, Choice& choice, const ChoiceUpdate& update) = 0;
  virtual void OnComplete() = 0;
  virtual void OnFault(const ApiError& error) = 0;

  bool chat() const { return request_.endpoint == OpenAiEndpoint::kChat; }
  // How much of each choice the client has already; empty: nothing.
  const std::vector<ResumePoint>& resume() const;
  bool tokens_shown() const { return request_.logprobs || request_.return_token_ids; }
  // "id", "object", "created", "model", "system_fingerprint" of an answer or chunk, with '{' before
  // and ',' after.
  std::string Envelope(std::string_view object) const;
  LogprobsStyle style() const { return {request_.top_logprobs, request_.tokens_as_ids}; }
  // "logprobs": of these tokens of a choice; null if not asked for.
  void AppendLogprobs(const Prompt& prompt, Choice& choice, std::span<const GeneratedToken> tokens,
                      bool first, std::string& out) const;
  GenerationUsage TotalUsage() const;

  OpenAiRequest request_;
  HttpExchangePtr exchange_;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;
  std::string fingerprint_;
  RequestId id_;

 private:
  class Sink;

  void StartAll();
  void HandleStart(size_t prompt, const GenerationStart& start);
  void HandleUpdate(size_t prompt, const ChoiceUpdate& update);
  void HandleDone(size_t prompt, const GenerationUsage& usage);
  void HandleError(size_t prompt, const GenerationError& error);
  void CancelAll();

  GenerationService& service_;
  EventLoop& loop_;
  int64_t created_unix_s_ = 0;
  size_t prompts_left_ = 0;
  bool ended_ = false;
};

// {"stop_reason":...}'s value: the stop string or token id that ended a choice, or null.
void AppendStopReason(const std::string& stop_string, const std::optional<TokenId>& stop_token,
                      std::string& out);

std::shared_ptr<OpenAiAnswer> MakeWholeAnswer(OpenAiRequest request, HttpExchangePtr exchange,
                                              GenerationService& service, EventLoop& loop);
std::shared_ptr<OpenAiAnswer> MakeStreamAnswer(OpenAiRequest request, HttpExchangePtr exchange,
                                               GenerationService& service, EventLoop& loop);

}  // namespace muselet
