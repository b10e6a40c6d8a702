#include "node/gateway/rpc_messages.h"

#include <limits>
#include <utility>

#include "frontend.pb.h"

namespace muselet {
namespace {

using PromptKind = v1::GenerateRequest::PromptCase;

Status ReadPrompt(const v1::GenerateRequest& message, GenerationRequest& request,
                  std::string& param) {
  switch (message.prompt_case()) {
    case PromptKind::kChat: {
      param = "messages";
      if (message.chat().messages().empty()) return InvalidArgument("messages is empty");
      ChatPrompt chat;
      for (const v1::ChatMessage& turn : message.chat().messages()) {
        if (turn.role().empty()) return InvalidArgument("messages: each needs a role");
        chat.messages.push_back(Json{{"role", turn.role()}, {"content", turn.content()}});
      }
      request.prompt = std::move(chat);
      return OkStatus();
    }
    case PromptKind::kText:
      request.prompt = TextPrompt{message.text()};
      return OkStatus();
    case PromptKind::kTokens:
      request.prompt = TokenPrompt{{message.tokens().ids().begin(), message.tokens().ids().end()}};
      return OkStatus();
    case PromptKind::PROMPT_NOT_SET:
      break;
  }
  param = "prompt";
  return InvalidArgument("prompt is missing: set chat, text or tokens");
}

void ReadSampling(const v1::GenerateRequest& message, SamplingParams& sampling) {
  if (message.has_temperature()) sampling.temperature = message.temperature();
  if (message.has_top_k()) sampling.top_k = message.top_k();
  if (message.has_top_p()) sampling.top_p = message.top_p();
  if (message.has_min_p()) sampling.min_p = message.min_p();
  if (message.has_repetition_penalty()) sampling.repetition_penalty = message.repetition_penalty();
  if (message.has_presence_penalty()) sampling.presence_penalty = message.presence_penalty();
  if (message.has_frequency_penalty()) sampling.frequency_penalty = message.frequency_penalty();
  if (message.has_seed()) sampling.seed = message.seed();
  for (const v1::LogitBias& entry : message.logit_bias())
    sampling.logit_bias.emplace_back(entry.id(), entry.bias());
}

}  // namespace

Result<RpcGenerate> ReadGenerate(const v1::GenerateRequest& message, std::string& param) {
  RpcGenerate read;
  GenerationRequest& request = read.request;
  RETURN_IF_ERROR(ReadPrompt(message, request, param));
  request.model = message.model();
  ReadSampling(message, request.sampling);
  request.has_seed = message.has_seed();
  if (message.has_logprobs()) {
    param = "logprobs";
    if (message.logprobs() > static_cast<uint32_t>(std::numeric_limits<int32_t>::max()))
      return InvalidArgument("logprobs is too large");
    request.sampling.logprobs = static_cast<int32_t>(message.logprobs());
    read.wants_logprobs = true;
  }
  if (message.has_max_tokens()) request.max_tokens = message.max_tokens();
  request.min_tokens = message.min_tokens();
  if (message.has_n()) request.choices = message.n();
  request.ignore_eos = message.ignore_eos();
  request.stop_strings.assign(message.stop().begin(), message.stop().end());
  request.stop_token_ids.assign(message.stop_token_ids().begin(), message.stop_token_ids().end());
  if (message.has_timeout_ms()) {
    param = "timeout_ms";
    constexpr int64_t kTimeoutMaxMs = int64_t{24} * 3600 * 1000;
    if (message.timeout_ms() < 1 || message.timeout_ms() > kTimeoutMaxMs)
      return InvalidArgument("timeout_ms must be from 1 to " + std::to_string(kTimeoutMaxMs));
    request.timeout_us = message.timeout_ms() * 1000;
  }
  param.clear();
  return read;
}

void WriteUpdate(const ChoiceUpdate& update, const std::string& request_id, bool with_logprobs,
                 v1::GenerateChunk& chunk) {
  chunk.set_request_id(request_id);
  chunk.set_choice(update.choice);
  chunk.set_text(update.text);
  for (const GeneratedToken& token : update.tokens) {
    v1::TokenInfo& info = *chunk.add_tokens();
    info.set_id(token.sampled.id);
    if (!with_logprobs) continue;
    info.set_logprob(token.sampled.logprob);
    for (const TokenLogprob& other : token.sampled.top) {
      v1::TokenLogprob& top = *info.add_top();
      top.set_id(other.id);
      top.set_logprob(other.logprob);
    }
  }
  if (update.finish != FinishReason::kNone)
    chunk.set_finish_reason(std::string(FinishReasonName(update.finish)));
}

void WriteError(const GenerationError& error, v1::Response& response) {
  response.set_final(true);
  v1::Error& out = *response.mutable_error();
  out.set_code(std::string(StatusCodeName(error.status.code())));
  out.set_message(error.status.message());
  out.set_param(error.param);
  out.set_retry_after_ms(error.retry_after_us / 1000);
  out.set_reason(std::string(error.code));
}

}  // namespace muselet
