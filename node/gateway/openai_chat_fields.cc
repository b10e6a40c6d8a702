// The rows of openai_fields that one endpoint alone has.
#include "node/gateway/openai_fields.h"

namespace muselet {
namespace {

using Fault = std::optional<ApiError>;
using F = FieldType;

constexpr double kInt32Max = std::numeric_limits<int32_t>::max();
constexpr size_t kPromptsMax = 256;

Fault SetMessages(const Json& value, const FieldContext& c) {
  return ParseMessages(value, c.out.chat.messages);
}

Fault SetChatLogprobs(const Json& value, const FieldContext& c) {
  c.out.logprobs = value.get<bool>();
  return std::nullopt;
}

Fault TooManyLogprobs(const char* name, const FieldContext& c) {
  return FieldError(
      name, std::string(name) + " must be at most " + std::to_string(c.limits.top_logprobs_max));
}

Fault SetTopLogprobs(const Json& value, const FieldContext& c) {
  if (value.get<double>() > c.limits.top_logprobs_max) return TooManyLogprobs("top_logprobs", c);
  c.out.top_logprobs = static_cast<uint32_t>(value.get<double>());
  if (c.out.top_logprobs > 0 && !c.out.logprobs)
    return FieldError("top_logprobs", "top_logprobs needs logprobs: true");
  return std::nullopt;
}

Fault SetCompletionLogprobs(const Json& value, const FieldContext& c) {
  if (value.get<double>() > c.limits.top_logprobs_max) return TooManyLogprobs("logprobs", c);
  c.out.logprobs = true;
  c.out.top_logprobs = static_cast<uint32_t>(value.get<double>());
  return std::nullopt;
}

Fault SetMaxCompletionTokens(const Json& value, const FieldContext& c) {
  c.out.generation.max_tokens = static_cast<uint32_t>(value.get<double>());
  c.out.max_completion_tokens = true;
  return std::nullopt;
}

Fault SetTools(const Json& value, const FieldContext& c) {
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_object())
      return FieldError("tools[" + std::to_string(i) + "]", "a tool must be an object");
  }
  if (!value.empty()) c.out.chat.tools = value;
  return std::nullopt;
}

Fault SetToolChoice(const Json& value, const FieldContext& c) {
  if (value == Json("none")) {
    c.out.chat.tools = nullptr;
    return std::nullopt;
  }
  if (value == Json("auto")) return std::nullopt;
  return FieldError("tool_choice",
                    "tool_choice must be \"none\", or \"auto\" without tools: tool calls are not "
                    "supported");
}

Fault SetDocuments(const Json& value, const FieldContext& c) {
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_object())
      return FieldError("documents[" + std::to_string(i) + "]", "a document must be an object");
  }
  c.out.chat.documents = value;
  return std::nullopt;
}

Fault SetTemplateKwargs(const Json& value, const FieldContext& c) {
  for (const auto& [key, member] : value.items()) c.out.chat.template_kwargs[key] = member;
  return std::nullopt;
}

Fault SetReasoningEffort(const Json& value, const FieldContext& c) {
  c.out.chat.template_kwargs["reasoning_effort"] = value;
  return std::nullopt;
}

Fault SetGenerationPrompt(const Json& value, const FieldContext& c) {
  c.out.chat.add_generation_prompt = value.get<bool>();
  return std::nullopt;
}

Fault SetResponseFormat(const Json& value, const FieldContext&) {
  const Json* type = FindMember(value, "type");
  if (type == nullptr || !type->is_string())
    return FieldError("response_format.type", "response_format needs a type");
  if (*type == Json("text")) return std::nullopt;
  return FieldError("response_format", "response_format \"" + type->get<std::string>() +
                                           "\" is not supported: only \"text\" is");
}

Fault SetModalities(const Json& value, const FieldContext&) {
  for (const Json& item : value) {
    if (item != Json("text"))
      return FieldError("modalities", "only the modality \"text\" is known");
  }
  return std::nullopt;
}

Fault RefuseChatEcho(const Json& value, const FieldContext&) {
  if (value.get<bool>()) return FieldError("echo", "echo is not supported in chats");
  return std::nullopt;
}

// The chat template writes the tokens at the beginning.
Fault RefuseChatSpecialTokens(const Json& value, const FieldContext&) {
  if (value.get<bool>())
    return FieldError("add_special_tokens", "add_special_tokens is not supported in chats");
  return std::nullopt;
}

Fault SetBestOf(const Json& value, const FieldContext&) {
  if (value.get<double>() > 1) return FieldError("best_of", "best_of above 1 is not supported");
  return std::nullopt;
}

constexpr OpenAiField kChatFields[] = {
    {"messages", F::kArray, "", "the conversation; required", SetMessages},
    {"logprobs", F::kBool, "false", "log probabilities of the answer's tokens", SetChatLogprobs},
    {"top_logprobs", F::kInteger, "0", "and of this many alternatives", SetTopLogprobs, 0},
    {"max_completion_tokens", F::kInteger, "max_tokens", "leads over max_tokens",
     SetMaxCompletionTokens, 1, kInt32Max},
    {"tools", F::kArray, "none", "only with tool_choice \"none\", which hides them", SetTools},
    {"tool_choice", F::kAny, "auto", "\"none\", or \"auto\" without tools", SetToolChoice},
    {"documents", F::kArray, "none", "given to the chat template", SetDocuments},
    {"chat_template_kwargs", F::kObject, "{}", "variables of the chat template", SetTemplateKwargs},
    {"reasoning_effort", F::kString, "none", "a variable of the chat template", SetReasoningEffort},
    {"add_generation_prompt", F::kBool, "true", "end the prompt where the assistant begins",
     SetGenerationPrompt},
    {"response_format", F::kObject, "text", "the form of the answer", SetResponseFormat},
    {"modalities", F::kArray, "text", "the media of the answer", SetModalities},
    {"echo", F::kBool, "false", "completions only", RefuseChatEcho},
    {"add_special_tokens", F::kBool, "false", "completions only", RefuseChatSpecialTokens},
    {"best_of", F::kInteger, "1", "only 1", SetBestOf, 0},
};

Fault AddPrompt(const Json& value, const FieldContext& c) {
  if (value.is_string()) {
    c.out.prompts.emplace_back(TextPrompt{value.get<std::string>(), true});
    return std::nullopt;
  }
  TokenPrompt prompt;
  Fault fault = ParseTokenIds(value, "prompt", prompt.ids);
  if (!fault && prompt.ids.empty()) fault = FieldError("prompt", "a prompt needs a token");
  if (!fault) c.out.prompts.emplace_back(std::move(prompt));
  return fault;
}

Fault SetPrompt(const Json& value, const FieldContext& c) {
  const bool many =
      value.is_array() && !value.empty() && (value.front().is_string() || value.front().is_array());
  if (!value.is_string() && !value.is_array())
    return FieldError("prompt", "prompt must be a string, token ids, or an array of these");
  if (!many) return AddPrompt(value, c);
  if (value.size() > kPromptsMax)
    return FieldError("prompt",
                      "prompt may hold at most " + std::to_string(kPromptsMax) + " prompts");
  for (const Json& item : value) {
    if (item.type() != value.front().type())
      return FieldError("prompt", "all prompts must be of one kind: strings or token ids");
    if (Fault fault = AddPrompt(item, c)) return fault;
  }
  return std::nullopt;
}

Fault SetEcho(const Json& value, const FieldContext& c) {
  c.out.generation.echo = value.get<bool>();
  return std::nullopt;
}

Fault SetAddSpecialTokens(const Json& value, const FieldContext& c) {
  c.out.add_special_tokens = value.get<bool>();
  return std::nullopt;
}

constexpr OpenAiField kCompletionFields[] = {
    {"prompt", F::kAny, "", "string, strings, token ids or lists of them; required", SetPrompt},
    {"logprobs", F::kInteger, "none", "log probabilities, with this many alternatives",
     SetCompletionLogprobs, 0},
    {"echo", F::kBool, "false", "begin the text with the prompt", SetEcho},
    {"add_special_tokens", F::kBool, "true", "begin the prompt as the tokenizer does",
     SetAddSpecialTokens},
    {"best_of", F::kInteger, "1", "only 1", SetBestOf, 0},
    {"response_format", F::kObject, "text", "the form of the answer", SetResponseFormat},
};

}  // namespace

std::span<const OpenAiField> OpenAiChatFields() {
  return kChatFields;
}
std::span<const OpenAiField> OpenAiCompletionFields() {
  return kCompletionFields;
}

}  // namespace muselet
