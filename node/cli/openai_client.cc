#include "node/cli/openai_client.h"

#include <algorithm>

#include "base/json.h"

namespace muselet {
namespace {

constexpr int kOkCode = 200;
constexpr int64_t kModelsTimeoutUs = 10'000'000;

using Headers = std::vector<std::pair<std::string, std::string>>;

Headers KeyHeader(const std::string& api_key) {
  if (api_key.empty()) return {};
  return {{"Authorization", "Bearer " + api_key}};
}

std::string StringAt(const Json* object, std::string_view key) {
  const Json* member = object == nullptr ? nullptr : FindMember(*object, key);
  return member != nullptr && member->is_string() ? member->get<std::string>() : "";
}

uint32_t CountAt(const Json& object, std::string_view key) {
  const Result<int64_t> count = GetInt(object, key, 0, "usage");
  return count.ok() ? static_cast<uint32_t>(std::clamp<int64_t>(*count, 0, UINT32_MAX)) : 0;
}

const Json* FirstOf(const Json& object, std::string_view key) {
  const Json* list = FindMember(object, key);
  return list != nullptr && list->is_array() && !list->empty() ? &list->front() : nullptr;
}

}  // namespace

std::string ApiBase(const HttpUrl& url) {
  return url.path.ends_with("/v1") ? url.path : url.path + "/v1";
}

HttpRequest MakeCompletionRequest(const std::string& api_base, const std::string& api_key,
                                  const CompletionParams& params) {
  Json body;
  body["model"] = params.model;
  if (params.messages.empty()) {
    body["prompt"] = params.prompt;
  } else {
    for (const ChatMessage& message : params.messages) {
      body["messages"].push_back({{"role", message.role}, {"content", message.content}});
    }
  }
  if (params.max_tokens > 0) body["max_tokens"] = params.max_tokens;
  if (params.temperature) body["temperature"] = *params.temperature;
  if (params.seed) body["seed"] = *params.seed;
  if (params.ignore_eos) body["ignore_eos"] = true;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  HttpRequest request;
  request.method = "POST";
  request.target = api_base + (params.messages.empty() ? "/completions" : "/chat/completions");
  request.headers = KeyHeader(api_key);
  request.headers.emplace_back("Accept", "text/event-stream");
  request.body = WriteJson(body);
  return request;
}

Result<std::string> ChooseModel(HttpClient& client, const std::string& api_base,
                                const std::string& api_key, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  HttpRequest request;
  request.target = api_base + "/models";
  request.headers = KeyHeader(api_key);
  ASSIGN_OR_RETURN(const HttpAnswer answer, Fetch(client, std::move(request), kModelsTimeoutUs));
  if (answer.status_code == 401 || answer.status_code == 403) {
    return PermissionDenied(ErrorMessage(answer.status_code, answer.body) +
                            " (give the key with --api-key)");
  }
  if (answer.status_code != kOkCode) {
    return Unavailable(request.target + ": " + ErrorMessage(answer.status_code, answer.body));
  }
  const Result<Json> list = ParseJson(answer.body);
  const std::string id = list.ok() ? StringAt(FirstOf(*list, "data"), "id") : "";
  if (id.empty()) return NotFound("the server lists no model (name one with --model)");
  return id;
}

std::string ErrorMessage(int status_code, const std::string& body) {
  const std::string code = "HTTP " + std::to_string(status_code);
  const Result<Json> json = ParseJson(body);
  if (!json.ok()) return code;
  const Json* error = FindMember(*json, "error");
  std::string message = StringAt(error, "message");
  if (message.empty()) message = StringAt(&*json, "error");
  if (message.empty()) message = StringAt(&*json, "message");
  if (message.empty()) message = StringAt(&*json, "detail");
  return message.empty() ? code : code + ": " + message;
}

void CompletionReader::OnBody(std::string_view bytes) {
  constexpr size_t kErrorBytesMax = 64 * 1024;
  if (status_code_ != kOkCode) {
    error_body_ += bytes.substr(0, kErrorBytesMax - std::min(kErrorBytesMax, error_body_.size()));
    return;
  }
  const Status status = events_.Feed(bytes, [this](std::string_view data) { OnEvent(data); });
  if (fault_.ok() && !status.ok()) fault_ = status;
}

void CompletionReader::OnEvent(std::string_view data) {
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  const Result<Json> event = ParseJson(data);
  if (!event.ok()) {
    if (fault_.ok()) fault_ = DataLoss("not JSON in an event: " + event.status().message());
    return;
  }
  if (FindMember(*event, "error") != nullptr) {
    if (fault_.ok()) fault_ = Unavailable(ErrorMessage(status_code_, std::string(data)));
    return;
  }
  const Json* usage = FindMember(*event, "usage");
  if (usage != nullptr && usage->is_object()) {
    has_usage_ = true;
    prompt_tokens_ = CountAt(*usage, "prompt_tokens");
    completion_tokens_ = CountAt(*usage, "completion_tokens");
  }
  const Json* choice = FirstOf(*event, "choices");
  if (choice == nullptr) return;
  const std::string reason = StringAt(choice, "finish_reason");
  if (!reason.empty()) finish_reason_ = reason;
  const Json* delta = FindMember(*choice, "delta");
  std::string text = StringAt(choice, "text");
  for (const char* key : {"reasoning_content", "reasoning", "content"}) {
    if (text.empty()) text = StringAt(delta, key);
  }
  if (text.empty()) return;
  ++pieces_;
  on_text_(text);
}

Status CompletionReader::Outcome() const {
  if (status_code_ != kOkCode) return Unavailable(ErrorMessage(status_code_, error_body_));
  RETURN_IF_ERROR(fault_);
  if (!done_ && finish_reason_.empty()) return DataLoss("the answer ends in the middle");
  return OkStatus();
}

}  // namespace muselet
