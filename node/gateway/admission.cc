#include "node/gateway/admission.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "node/gateway/prompt_text.h"

namespace muselet {
namespace {

using MaybeError = std::optional<GenerationError>;

GenerationError Invalid(const std::string& param, const std::string& problem) {
  return {InvalidArgument(param + " " + problem), param, 0};
}

// NaN fails every comparison and so is never inside.
bool Inside(float value, float low, float high) {
  return value >= low && value <= high;
}

MaybeError CheckSampling(const SamplingParams& sampling, const RequestLimits& limits) {
  if (!Inside(sampling.temperature, 0.0F, 100.0F))
    return Invalid("temperature", "must be a number from 0 to 100");
  if (sampling.top_k < 0) return Invalid("top_k", "must not be negative (0 = off)");
  if (!Inside(sampling.top_p, 0.0F, 1.0F) || sampling.top_p == 0.0F)
    return Invalid("top_p", "must be above 0 and at most 1");
  if (!Inside(sampling.min_p, 0.0F, 1.0F)) return Invalid("min_p", "must be from 0 to 1");
  if (!Inside(sampling.repetition_penalty, 0.0F, 100.0F) || sampling.repetition_penalty == 0.0F)
    return Invalid("repetition_penalty", "must be above 0 and at most 100");
  if (!Inside(sampling.presence_penalty, -2.0F, 2.0F))
    return Invalid("presence_penalty", "must be from -2 to 2");
  if (!Inside(sampling.frequency_penalty, -2.0F, 2.0F))
    return Invalid("frequency_penalty", "must be from -2 to 2");
  const auto top_max = static_cast<int32_t>(limits.top_logprobs_max);
  if (sampling.logprobs > top_max || sampling.prompt_logprobs > top_max)
    return Invalid("logprobs", "asks for more than " + std::to_string(top_max) + " alternatives");
  if (sampling.logit_bias.size() > limits.logit_bias_max)
    return Invalid("logit_bias",
                   "has more than " + std::to_string(limits.logit_bias_max) + " entries");
  return std::nullopt;
}

MaybeError CheckIds(const GenerationRequest& request, const ModelLimits& model) {
  const auto known = [&](TokenId id) {
    return id >= 0 && static_cast<uint32_t>(id) < model.vocab_size;
  };
  const auto unknown = [&](const char* param, TokenId id) {
    return Invalid(param, "holds token id " + std::to_string(id) +
                              ", which is not in the vocabulary (0 to " +
                              std::to_string(model.vocab_size - 1) + ")");
  };
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (!known(id)) return unknown("logit_bias", id);
    if (!Inside(bias, -100.0F, 100.0F))
      return Invalid("logit_bias", "has a value outside of -100 to 100");
  }
  for (const TokenId id : request.stop_token_ids) {
    if (!known(id)) return unknown("stop_token_ids", id);
  }
  if (const auto* tokens = std::get_if<TokenPrompt>(&request.prompt)) {
    for (const TokenId id : tokens->ids) {
      if (!known(id)) return unknown("prompt", id);
    }
  }
  return std::nullopt;
}

MaybeError CheckStops(const GenerationRequest& request, const ModelLimits& model,
                      const RequestLimits& limits) {
  if (request.stop_strings.size() > limits.stop_strings_max)
    return Invalid("stop", "has more than " + std::to_string(limits.stop_strings_max) + " strings");
  for (const std::string& stop : request.stop_strings) {
    if (stop.empty()) return Invalid("stop", "holds an empty string");
    if (stop.size() > limits.stop_bytes_max)
      return Invalid("stop", "holds a string of more than " +
                                 std::to_string(limits.stop_bytes_max) + " bytes");
  }
  if (!request.stop_strings.empty() && !model.has_tokenizer)
    return Invalid("stop", "needs text, and model " + model.id + " has no tokenizer");
  if (request.stop_token_ids.size() > limits.logit_bias_max)
    return Invalid("stop_token_ids",
                   "has more than " + std::to_string(limits.logit_bias_max) + " ids");
  return std::nullopt;
}

MaybeError CheckPromptKind(const GenerationRequest& request, const ModelLimits& model) {
  const std::string param = PromptParam(request.prompt);
  if (std::holds_alternative<TokenPrompt>(request.prompt)) return std::nullopt;
  if (!model.has_tokenizer)
    return Invalid(param, "cannot be text: model " + model.id +
                              " has no tokenizer; send token ids as a completion prompt");
  if (std::holds_alternative<ChatPrompt>(request.prompt) && !model.has_chat_template)
    return Invalid(param,
                   "cannot be used: model " + model.id + " has no chat template; use completions");
  return std::nullopt;
}

}  // namespace

MaybeError CheckRequest(const GenerationRequest& request, const ModelLimits& model,
                        const RequestLimits& limits) {
  if (request.choices == 0 || request.choices > limits.choices_max)
    return Invalid("n", "must be from 1 to " + std::to_string(limits.choices_max));
  if (request.timeout_us < 0) return Invalid("timeout", "must not be negative");
  if (request.max_tokens == 0U && !request.echo)
    return Invalid("max_tokens", "must be at least 1 (0 only with echo)");
  if (request.max_tokens && request.min_tokens > *request.max_tokens)
    return Invalid("min_tokens",
                   "must not exceed max_tokens (" + std::to_string(*request.max_tokens) + ")");
  if (auto error = CheckSampling(request.sampling, limits)) return error;
  if (auto error = CheckStops(request, model, limits)) return error;
  if (auto error = CheckPromptKind(request, model)) return error;
  return CheckIds(request, model);
}

MaybeError CheckLengths(const std::string& param, size_t prompt_tokens,
                        const GenerationRequest& request, const ModelLimits& model) {
  if (prompt_tokens == 0) return Invalid(param, "is empty: at least one token is needed");
  const std::string context = "This model's maximum context length is " +
                              std::to_string(model.context_tokens) +
                              " tokens, answer included, and ";
  const std::string has = param + " has " + std::to_string(prompt_tokens) + " tokens";
  if (prompt_tokens >= model.context_tokens)
    return GenerationError{InvalidArgument(context + has + ". Please shorten it."), param, 0};
  const size_t room = model.context_tokens - prompt_tokens;
  if (!request.max_tokens || *request.max_tokens <= room) return std::nullopt;
  const std::string asked = std::to_string(*request.max_tokens);
  return GenerationError{
      InvalidArgument(context + has + ": max_tokens may be at most " + std::to_string(room) +
                      ", not " + asked + ". Leave it out to use what is left."),
      "max_tokens", 0};
}

RequestRecord MakeRecord(const GenerationRequest& request, const RequestId& id,
                         size_t prompt_tokens, uint64_t seed, const ModelLimits& model,
                         const SurfaceOptions& surface, const RequestLimits& limits) {
  RequestRecord record;
  record.request = id;
  record.model = model.id;
  record.surface = surface.name;
  record.request_class = surface.request_class;
  record.share = surface.share;
  record.choices = request.choices;
  const int64_t preset_us = surface.timeout_us > 0 ? surface.timeout_us : limits.timeout_us;
  record.timeout_us = request.timeout_us > 0 ? request.timeout_us : preset_us;
  record.sampling = request.sampling;
  if (!request.has_seed) record.sampling.seed = seed;
  if (request.echo && request.sampling.logprobs >= 0)
    record.sampling.prompt_logprobs =
        std::max(request.sampling.logprobs, request.sampling.prompt_logprobs);
  const auto room = static_cast<uint32_t>(model.context_tokens - prompt_tokens);
  const uint32_t preset =
      request.max_tokens_default > 0 ? request.max_tokens_default : limits.max_tokens_default;
  const uint32_t fallback = preset > 0 ? preset : room;
  record.stop.max_tokens = std::clamp(request.max_tokens.value_or(fallback), 1U, room);
  record.stop.min_tokens = std::min(request.min_tokens, record.stop.max_tokens);
  record.stop.end_tokens = request.stop_token_ids;
  if (!request.ignore_eos) {
    record.stop.end_tokens.insert(record.stop.end_tokens.end(), model.end_tokens.begin(),
                                  model.end_tokens.end());
  }
  auto& ends = record.stop.end_tokens;
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return record;
}

uint64_t CacheSalt(const ClusterSecret* secret, const std::string& cluster,
                   const SurfaceOptions& surface) {
  const std::string& name = surface.prefix_salt.empty() ? surface.name : surface.prefix_salt;
  if (secret != nullptr) {
    uint64_t salt = 0;
    std::memcpy(&salt, secret->Sign({"salt", cluster, name}).data(), sizeof(salt));
    return salt;
  }
  // Lengths first, so that no two pairs of names make the same bytes.
  const std::string key = std::to_string(cluster.size()) + ":" + cluster + name;
  return XXH3_64bits(key.data(), key.size());
}

void LimitThought(const SurfaceOptions& surface, GenerationRequest& request) {
  constexpr const char* kBudget = "thinking_budget";
  auto* chat = std::get_if<ChatPrompt>(&request.prompt);
  if (chat == nullptr) return;
  const auto given = chat->template_kwargs.find(kBudget);
  const bool named = given != chat->template_kwargs.end() && given->is_number();
  const double most = surface.reasoning_tokens_max;
  double budget = named ? given->get<double>() : surface.reasoning_tokens_default;
  if (!named && budget == 0) budget = most;
  if (most > 0) budget = std::min(budget, most);
  if (named ? most > 0 : budget > 0)
    chat->template_kwargs[kBudget] = static_cast<int64_t>(std::max(budget, 0.0));
}

}  // namespace muselet
