// What a client asked for: one struct for /v1/chat/completions and /v1/completions, read from JSON
// by a table of fields (openai_fields) that checks types and limits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "node/gateway/gateway_options.h"
#include "node/gateway/generation.h"
#include "node/gateway/openai_error.h"
#include "node/gateway/request_origin.h"

namespace muselet {

enum class OpenAiEndpoint { kChat, kCompletions };

struct OpenAiRequest {
  OpenAiEndpoint endpoint = OpenAiEndpoint::kChat;

  // All but `prompt`, which is one of `prompts`: a completion may have several.
  GenerationRequest generation;
  std::vector<std::variant<ChatPrompt, TextPrompt, TokenPrompt>> prompts;
  // What it keeps if it is asked again. Absent: it is answered once.
  std::optional<RequestOrigin> origin;
  std::vector<FixedParts> fixed;  // by prompt

  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // usage in each chunk
  bool logprobs = false;
  uint32_t top_logprobs = 0;
  std::optional<uint32_t> prompt_logprobs;  // vLLM's field
  bool return_token_ids = false;
  bool max_completion_tokens = false;  // the name under which max_tokens came
  bool tokens_as_ids = false;          // token strings as "token_id:N"

  // While fields are read; the prompts are made of them at the end.
  ChatPrompt chat;
  bool add_special_tokens = true;
};

// Reads a body. The returned error names the first field at fault. `json_depth_max` bounds the
// nesting of the body. Unknown fields are ignored, known ones that are not supported are refused:
// ignoring them would answer another question than the one that was asked.
std::optional<ApiError> ParseOpenAiRequest(OpenAiEndpoint endpoint, std::string_view body,
                                           const RequestLimits& limits, uint32_t json_depth_max,
                                           OpenAiRequest& out);

// The body of any endpoint as a JSON object.
std::optional<ApiError> ParseJsonBody(std::string_view body, uint32_t json_depth_max, Json& out);

// Chat messages as templates expect them: roles checked, text parts joined, null content empty,
// tool-call arguments as objects.
std::optional<ApiError> ParseMessages(const Json& value, Json& out);

// A list of token ids. `param` names the field.
std::optional<ApiError> ParseTokenIds(const Json& value, const std::string& param,
                                      std::vector<TokenId>& out);

}  // namespace muselet
