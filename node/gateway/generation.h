// What a gateway's front doors (HTTP in node/gateway/http_*, openai_*; RPC in node/gateway/rpc_*)
// ask of its middle (node/gateway/generation_service): answers of a model as streams of updates.
// The middle owns the request: record, attempts, tokenizing, detokenizing, stop strings.
//
// Every call and every callback is on the gateway's loop thread; tokenizing and rendering run in
// the text pool in between.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/messages.h"
#include "base/status.h"
#include "base/types.h"

namespace muselet {

struct ChatPrompt {
  Json messages = Json::array();
  Json tools;      // null = none
  Json documents;  // null = none
  Json template_kwargs = Json::object();
  bool add_generation_prompt = true;
};
struct TextPrompt {
  std::string text;
  bool add_special_tokens = true;  // BOS, where the tokenizer says so
};
struct TokenPrompt {
  std::vector<TokenId> ids;
};

// What a request keeps if it is asked again, anywhere and at any time
// (node/gateway/request_origin).
struct FixedParts {
  RequestId id;  // shown to the client
  uint64_t seed = 0;
  int64_t now_unix_us = 0;  // what the template's clock shows
  bool may_run = false;     // asked before, perhaps: what still runs of it is joined
};

// How much of a choice the client has already.
struct ResumePoint {
  enum class Stage : uint8_t {
    kTokens,    // the text of `tokens` tokens
    kText,      // that, and all text there is
    kFinished,  // that, and the word how it ended
  };
  uint32_t tokens = 0;
  Stage stage = Stage::kTokens;
  friend bool operator==(const ResumePoint&, const ResumePoint&) = default;
};

struct GenerationRequest {
  std::string model;
  std::string surface = "default";
  RequestClass request_class = RequestClass::kInteractive;
  std::variant<ChatPrompt, TextPrompt, TokenPrompt> prompt;
  uint32_t choices = 1;
  SamplingParams sampling;  // sampling.seed counts only if has_seed
  bool has_seed = false;
  // Together with the prompt at most the context. Absent: max_tokens_default, or what is left of
  // the context if that is less.
  std::optional<uint32_t> max_tokens;
  uint32_t max_tokens_default = 0;  // 0 = the gateway's option, without one what is left
  uint32_t min_tokens = 0;
  bool ignore_eos = false;
  std::vector<TokenId> stop_token_ids;
  std::vector<std::string> stop_strings;
  bool include_stop_in_output = false;
  bool skip_special_tokens = true;
  bool echo = false;  // the first update of each choice begins with the prompt's text (and logprobs
                      // if asked for)
  int64_t timeout_us = 0;           // 0 = the surface's default, or else the gateway's
  std::optional<FixedParts> fixed;  // absent: drawn anew
  std::vector<ResumePoint> resume;  // by choice; empty: from the beginning
};

// One generated token as the client may see it. Text positions refer to the choice's text so far.
struct GeneratedToken {
  SampledToken sampled;
  std::string
      text;  // this token's own bytes, not necessarily valid UTF-8 (OpenAI's logprobs `bytes`)
  std::vector<std::string> top_texts;  // the own bytes of each of sampled.top
};

struct ChoiceUpdate {
  uint32_t choice = 0;
  std::string text;  // valid UTF-8; may be empty
  std::vector<GeneratedToken>
      tokens;  // new since the last update; shown tokens only (nothing past a stop)
  FinishReason finish = FinishReason::kNone;
  std::string stop_string;            // the one that ended it, if one did
  std::optional<TokenId> stop_token;  // an explicit stop_token_ids id that ended it
  // Of a resumed request: the client has text and tokens of this update, or all of it.
  bool text_seen = false;
  bool finish_seen = false;
};
struct GenerationUsage {
  uint32_t prompt_tokens = 0;
  uint32_t generation_tokens = 0;  // all choices
  uint32_t cached_prompt_tokens = 0;
};
// Known once the prompt is tokenized.
struct GenerationStart {
  RequestId request;
  std::string model;
  std::string numerics_id;  // shown as system_fingerprint
  uint64_t seed = 0;        // the one in force
  std::vector<TokenId> prompt_ids;
  std::vector<GeneratedToken>
      prompt_tokens;  // with echo + logprobs: each prompt token (the first has no logprob)
};
struct GenerationError {
  Status status;
  std::string param = {};      // the request field at fault, if one is
  int64_t retry_after_us = 0;  // with kResourceExhausted and kUnavailable
  // A word for programs where the status says too little: "poisoned_request",
  // "idempotency_key_reused", ...; else empty.
  std::string_view code = {};
};

// One call's callbacks: OnStart at most once, before any OnUpdate; then updates; then exactly one
// of OnDone and OnError (OnError may come without OnStart). Nothing comes after Cancel.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void OnStart(const GenerationStart& start) = 0;
  virtual void OnUpdate(const ChoiceUpdate& update) = 0;
  virtual void OnDone(const GenerationUsage& usage) = 0;
  virtual void OnError(const GenerationError& error) = 0;
};

struct ServedModel {
  std::string id;
  uint32_t context_tokens = 0;
  uint32_t replicas_ready = 0;
  bool has_tokenizer = false;
  bool has_chat_template = false;
};

class GenerationService {
 public:
  virtual ~GenerationService() = default;

  // Never calls the sink from within Start. The sink is destroyed after its last callback.
  virtual RequestId Start(GenerationRequest request, std::unique_ptr<GenerationSink> sink) = 0;
  // The client went away: frees what the request holds, everywhere. Unknown ids are ignored.
  virtual void Cancel(const RequestId& request) = 0;

  virtual std::vector<ServedModel> Models() const = 0;
  // OK if a token can be produced now, for every model; otherwise what is missing.
  virtual Status Ready() const = 0;
  // What is left of a surface's quotas, as the schedulers said last; limits of 0 are none.
  virtual QuotaState Quota(const std::string& surface) const {
    (void)surface;
    return {};
  }

  struct Tokenized {
    std::vector<TokenId> ids;
    std::vector<std::string> texts;  // parallel to ids
  };
  using TokenizeCallback = std::function<void(Result<Tokenized>)>;
  using DetokenizeCallback = std::function<void(Result<std::string>)>;
  virtual void Tokenize(const std::string& model, std::variant<ChatPrompt, TextPrompt> prompt,
                        TokenizeCallback callback) = 0;
  virtual void Detokenize(const std::string& model, std::vector<TokenId> ids,
                          DetokenizeCallback callback) = 0;
};

}  // namespace muselet
