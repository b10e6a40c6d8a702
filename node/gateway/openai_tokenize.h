// /tokenize and /detokenize, in vLLM's shapes.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "node/gateway/gateway_options.h"
#include "node/gateway/generation.h"
#include "node/gateway/http_message.h"
#include "node/gateway/openai_error.h"

namespace muselet {

struct TokenizeRequest {
  std::string model;  // empty = the one there is
  std::variant<ChatPrompt, TextPrompt> prompt;
  bool return_token_strings = false;
};
std::optional<ApiError> ParseTokenizeRequest(std::string_view body, uint32_t json_depth_max,
                                             TokenizeRequest& out);

struct DetokenizeRequest {
  std::string model;
  std::vector<TokenId> tokens;
};
std::optional<ApiError> ParseDetokenizeRequest(std::string_view body, uint32_t json_depth_max,
                                               DetokenizeRequest& out);

// Ask the service and answer the exchange.
void AnswerTokenize(TokenizeRequest request, const ServedModel& model, GenerationService& service,
                    HttpExchangePtr exchange);
void AnswerDetokenize(DetokenizeRequest request, GenerationService& service,
                      HttpExchangePtr exchange);

}  // namespace muselet
