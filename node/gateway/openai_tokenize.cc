#include "node/gateway/openai_tokenize.h"

#include "base/json.h"
#include "node/gateway/openai_request.h"
#include "node/gateway/openai_writer.h"

namespace muselet {
namespace {

using Fault = std::optional<ApiError>;

Fault ReadBool(const Json& body, const char* name, bool& out) {
  const Json* value = FindMember(body, name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) return FieldError(name, std::string(name) + " must be true or false");
  out = value->get<bool>();
  return std::nullopt;
}

Fault ReadModel(const Json& body, std::string& out) {
  const Json* value = FindMember(body, "model");
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) return FieldError("model", "model must be a string");
  out = value->get<std::string>();
  return std::nullopt;
}

Fault ReadChat(const Json& body, const Json& messages, ChatPrompt& chat) {
  if (Fault fault = ParseMessages(messages, chat.messages)) return fault;
  if (Fault fault = ReadBool(body, "add_generation_prompt", chat.add_generation_prompt))
    return fault;
  if (const Json* tools = FindMember(body, "tools")) {
    if (!tools->is_array()) return FieldError("tools", "tools must be an array");
    if (!tools->empty()) chat.tools = *tools;
  }
  if (const Json* kwargs = FindMember(body, "chat_template_kwargs")) {
    if (!kwargs->is_object())
      return FieldError("chat_template_kwargs", "chat_template_kwargs must be an object");
    chat.template_kwargs = *kwargs;
  }
  return std::nullopt;
}

}  // namespace

Fault ParseTokenizeRequest(std::string_view text, uint32_t json_depth_max, TokenizeRequest& out) {
  Json body;
  if (Fault fault = ParseJsonBody(text, json_depth_max, body)) return fault;
  if (Fault fault = ReadModel(body, out.model)) return fault;
  if (Fault fault = ReadBool(body, "return_token_strs", out.return_token_strings)) return fault;
  if (const Json* messages = FindMember(body, "messages")) {
    ChatPrompt chat;
    if (Fault fault = ReadChat(body, *messages, chat)) return fault;
    out.prompt = std::move(chat);
    return std::nullopt;
  }
  const Json* prompt = FindMember(body, "prompt");
  if (prompt == nullptr) return FieldError("prompt", "prompt or messages is missing");
  if (!prompt->is_string()) return FieldError("prompt", "prompt must be a string");
  TextPrompt plain{prompt->get<std::string>(), true};
  if (Fault fault = ReadBool(body, "add_special_tokens", plain.add_special_tokens)) return fault;
  out.prompt = std::move(plain);
  return std::nullopt;
}

Fault ParseDetokenizeRequest(std::string_view text, uint32_t json_depth_max,
                             DetokenizeRequest& out) {
  Json body;
  if (Fault fault = ParseJsonBody(text, json_depth_max, body)) return fault;
  if (Fault fault = ReadModel(body, out.model)) return fault;
  const Json* tokens = FindMember(body, "tokens");
  if (tokens == nullptr) return FieldError("tokens", "tokens is missing");
  return ParseTokenIds(*tokens, "tokens", out.tokens);
}

void AnswerTokenize(TokenizeRequest request, const ServedModel& model, GenerationService& service,
                    HttpExchangePtr exchange) {
  const bool chat = std::holds_alternative<ChatPrompt>(request.prompt);
  const bool strings = request.return_token_strings;
  const uint32_t context = model.context_tokens;
  service.Tokenize(model.id, std::move(request.prompt),
                   [exchange, chat, strings, context](Result<GenerationService::Tokenized> result) {
                     if (!result.ok())
                       return exchange->Respond(
                           ResponseOf(ErrorOf(result.status(), chat ? "messages" : "prompt")));
                     HttpResponse response;
                     std::string& body = response.body;
                     body = R"({"count":)";
                     AppendInteger(result->ids.size(), body);
                     body += R"(,"max_model_len":)";
                     AppendInteger(context, body);
                     body += R"(,"tokens":)";
                     AppendTokenIds(result->ids, body);
                     body += R"(,"token_strs":)";
                     if (!strings) body += "null";
                     for (size_t i = 0; strings && i < result->texts.size(); ++i) {
                       body += i == 0 ? '[' : ',';
                       AppendJsonString(result->texts[i], body);
                     }
                     if (strings) body += result->texts.empty() ? "[]" : "]";
                     body += '}';
                     exchange->Respond(std::move(response));
                   });
}

void AnswerDetokenize(DetokenizeRequest request, GenerationService& service,
                      HttpExchangePtr exchange) {
  service.Detokenize(request.model, std::move(request.tokens),
                     [exchange](Result<std::string> result) {
                       if (!result.ok())
                         return exchange->Respond(ResponseOf(ErrorOf(result.status(), "tokens")));
                       HttpResponse response;
                       response.body = R"({"prompt":)";
                       AppendJsonString(*result, response.body);
                       response.body += '}';
                       exchange->Respond(std::move(response));
                     });
}

}  // namespace muselet
