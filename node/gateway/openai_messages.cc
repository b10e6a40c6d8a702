#include <algorithm>
#include <array>

#include "node/gateway/openai_request.h"

namespace muselet {
namespace {

using Fault = std::optional<ApiError>;

constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                    "assistant", "tool",      "function"};

// Text parts become one string: what templates of text models expect.
Fault JoinParts(const Json& parts, const std::string& param, Json& out) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string where = param + "[" + std::to_string(i) + "]";
    const Json& part = parts[i];
    if (part.is_string()) {
      text += (i > 0 ? "\n" : "") + part.get<std::string>();
      continue;
    }
    const Json* type = FindMember(part, "type");
    if (type == nullptr || !type->is_string()) return FieldError(where, where + " needs a type");
    if (*type != Json("text"))
      return FieldError(where + ".type",
                        where + ": only parts of type \"text\" are understood, not \"" +
                            type->get<std::string>() + "\"");
    const Json* part_text = FindMember(part, "text");
    if (part_text == nullptr || !part_text->is_string())
      return FieldError(where + ".text", where + " needs its text as a string");
    text += (i > 0 ? "\n" : "") + part_text->get<std::string>();
  }
  out = std::move(text);
  return std::nullopt;
}

// Templates walk the arguments of a call; clients send them as JSON in a string.
void OpenArguments(Json& message) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return;
  for (Json& call : *calls) {
    if (!call.is_object() || !call.contains("function")) continue;
    Json& function = call["function"];
    if (!function.is_object()) continue;
    const Json* arguments = FindMember(function, "arguments");
    if (arguments == nullptr || !arguments->is_string()) continue;
    Result<Json> parsed = ParseJson(arguments->get<std::string>());
    if (parsed.ok() && parsed->is_object()) function["arguments"] = std::move(parsed).value();
  }
}

Fault ParseMessage(const Json& value, const std::string& where, Json& out) {
  if (!value.is_object()) return FieldError(where, where + " must be an object");
  const Json* role = FindMember(value, "role");
  if (role == nullptr || !role->is_string())
    return FieldError(where + ".role", where + " needs a role");
  if (std::find(kRoles.begin(), kRoles.end(), role->get<std::string>()) == kRoles.end())
    return FieldError(where + ".role", where +
                                           ": the role must be system, developer, user, "
                                           "assistant or tool");
  out = value;
  if (*role == Json("developer")) out["role"] = "system";
  const Json* content = FindMember(value, "content");
  if (content == nullptr) {
    const bool assistant = *role == Json("assistant");
    if (!value.contains("content") && !assistant)
      return FieldError(where + ".content", where + " needs content");
    out["content"] = "";
  } else if (content->is_array()) {
    if (Fault fault = JoinParts(*content, where + ".content", out["content"])) return fault;
  } else if (!content->is_string()) {
    return FieldError(where + ".content",
                      where + ": content must be a string or an array of parts");
  }
  OpenArguments(out);
  return std::nullopt;
}

}  // namespace

Fault ParseMessages(const Json& value, Json& out) {
  if (!value.is_array()) return FieldError("messages", "messages must be an array");
  if (value.empty()) return FieldError("messages", "messages needs at least one message");
  out = Json::array();
  for (size_t i = 0; i < value.size(); ++i) {
    Json message;
    if (Fault fault = ParseMessage(value[i], "messages[" + std::to_string(i) + "]", message))
      return fault;
    out.push_back(std::move(message));
  }
  return std::nullopt;
}

}  // namespace muselet
