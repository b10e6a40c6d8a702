#include "node/gateway/openai_request.h"

#include <algorithm>
#include <limits>

#include "node/gateway/openai_fields.h"

namespace muselet {
namespace {

using Fault = std::optional<ApiError>;

constexpr uint32_t kCompletionTokensDefault = 16;

Fault ApplyAll(std::span<const OpenAiField> fields, const Json& body, const FieldContext& context) {
  for (const OpenAiField& field : fields) {
    const auto found = body.find(field.name);
    if (found == body.end()) continue;
    if (Fault fault = ApplyField(field, *found, context)) return fault;
  }
  return std::nullopt;
}

// What no single field can say.
Fault CheckTogether(const RequestLimits& limits, OpenAiRequest& out) {
  GenerationRequest& generation = out.generation;
  generation.max_tokens_default = out.endpoint == OpenAiEndpoint::kCompletions
                                      ? kCompletionTokensDefault
                                      : limits.max_tokens_default;
  if (generation.max_tokens == 0U && !generation.echo)
    return FieldError("max_tokens", "max_tokens must be at least 1 (0 needs echo)");
  const uint32_t most = generation.max_tokens.value_or(generation.max_tokens_default);
  if (most > 0 && generation.min_tokens > most)
    return FieldError("min_tokens", "min_tokens must not be larger than max_tokens");
  if (!out.chat.tools.empty())
    return FieldError(
        "tools",
        "tools are not supported: tool calls are not read out of answers; leave tools "
        "out, or set tool_choice to \"none\"");
  if (out.stream && out.prompt_logprobs)
    return FieldError("prompt_logprobs", "prompt_logprobs cannot be streamed");
  if (!out.stream && (out.include_usage || out.continuous_usage))
    return FieldError("stream_options", "stream_options needs stream: true");
  return std::nullopt;
}

void SetLogprobs(OpenAiRequest& out) {
  SamplingParams& sampling = out.generation.sampling;
  if (out.logprobs) sampling.logprobs = static_cast<int32_t>(out.top_logprobs);
  if (out.prompt_logprobs) sampling.prompt_logprobs = static_cast<int32_t>(*out.prompt_logprobs);
  if (out.logprobs && out.generation.echo) {
    sampling.prompt_logprobs =
        std::max(sampling.prompt_logprobs, static_cast<int32_t>(out.top_logprobs));
  }
}

}  // namespace

Fault ParseJsonBody(std::string_view body, uint32_t json_depth_max, Json& out) {
  JsonLimits limits;
  limits.depth_max = json_depth_max;
  std::string key;
  Result<Json> parsed = ParseJson(body, limits, &key);
  if (!parsed.ok())
    return FieldError(key, "the request body is not usable JSON: " + parsed.status().message());
  out = std::move(parsed).value();
  if (!out.is_object())
    return FieldError(
        "", std::string("the request body must be a JSON object, not ") + out.type_name());
  return std::nullopt;
}

Fault ParseTokenIds(const Json& value, const std::string& param, std::vector<TokenId>& out) {
  if (!value.is_array()) return FieldError(param, param + " must be an array of token ids");
  out.reserve(value.size());
  for (const Json& item : value) {
    if (!item.is_number_integer())
      return FieldError(param, param + " must hold token ids, which are integers");
    const int64_t id =
        item.is_number_unsigned() && item.get<uint64_t>() > std::numeric_limits<int32_t>::max()
            ? -1
            : item.get<int64_t>();
    if (id < 0 || id > std::numeric_limits<int32_t>::max())
      return FieldError(param, param + ": " + item.dump() + " is not a token id");
    out.push_back(static_cast<TokenId>(id));
  }
  return std::nullopt;
}

Fault ParseOpenAiRequest(OpenAiEndpoint endpoint, std::string_view body_text,
                         const RequestLimits& limits, uint32_t json_depth_max, OpenAiRequest& out) {
  Json body;
  if (Fault fault = ParseJsonBody(body_text, json_depth_max, body)) return fault;
  out.endpoint = endpoint;
  const bool chat = endpoint == OpenAiEndpoint::kChat;
  const FieldContext context{limits, out};
  if (Fault fault = ApplyAll(OpenAiSamplingFields(), body, context)) return fault;
  const auto own = chat ? OpenAiChatFields() : OpenAiCompletionFields();
  if (Fault fault = ApplyAll(own, body, context)) return fault;
  if (Fault fault = ApplyAll(OpenAiRefusedFields(), body, context)) return fault;
  const char* needed = chat ? "messages" : "prompt";
  if (FindMember(body, needed) == nullptr)
    return FieldError(needed, std::string(needed) + " is missing");
  if (Fault fault = CheckTogether(limits, out)) return fault;
  SetLogprobs(out);
  if (chat) out.prompts.emplace_back(std::move(out.chat));
  for (auto& prompt : out.prompts) {
    if (auto* text = std::get_if<TextPrompt>(&prompt))
      text->add_special_tokens = out.add_special_tokens;
  }
  return std::nullopt;
}

}  // namespace muselet
