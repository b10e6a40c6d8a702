#include "node/gateway/openai_fields.h"

#include <charconv>
#include <cmath>

namespace muselet {
namespace {

using Fault = std::optional<ApiError>;

constexpr double kInt32Max = std::numeric_limits<int32_t>::max();
constexpr size_t kStopTokensMax = 1024;
constexpr double kTimeoutSecondsMax = 86'400;
constexpr int64_t kSecondUs = 1'000'000;

std::string_view TypeName(FieldType type) {
  switch (type) {
    case FieldType::kBool:
      return "true or false";
    case FieldType::kInteger:
      return "an integer";
    case FieldType::kNumber:
      return "a number";
    case FieldType::kString:
      return "a string";
    case FieldType::kArray:
      return "an array";
    case FieldType::kObject:
      return "an object";
    default:
      return "any value";
  }
}

bool HasType(const Json& value, FieldType type) {
  switch (type) {
    case FieldType::kBool:
      return value.is_boolean();
    case FieldType::kInteger:
      return value.is_number_integer() ||
             (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
    case FieldType::kNumber:
      return value.is_number();
    case FieldType::kString:
      return value.is_string();
    case FieldType::kArray:
      return value.is_array();
    case FieldType::kObject:
      return value.is_object();
    default:
      return true;
  }
}

std::string Shown(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

std::string Range(const OpenAiField& field) {
  const bool low = std::isfinite(field.min);
  const bool high = std::isfinite(field.max);
  const std::string more = field.min_exclusive ? "more than " : "at least ";
  if (low && high && !field.min_exclusive)
    return "between " + Shown(field.min) + " and " + Shown(field.max);
  if (low && high) return more + Shown(field.min) + " and at most " + Shown(field.max);
  return low ? more + Shown(field.min) : "at most " + Shown(field.max);
}

uint32_t ToUint32(const Json& value) {
  return static_cast<uint32_t>(value.get<double>());
}

// Any 64-bit integer is a seed, negative ones too.
Fault SetSeed(const Json& value, const FieldContext& c) {
  if (!value.is_number_integer()) return FieldError("seed", "seed must be a 64-bit integer");
  c.out.generation.sampling.seed = value.is_number_unsigned()
                                       ? value.get<uint64_t>()
                                       : static_cast<uint64_t>(value.get<int64_t>());
  c.out.generation.has_seed = true;
  return std::nullopt;
}

Fault SetChoices(const Json& value, const FieldContext& c) {
  if (value.get<double>() > c.limits.choices_max)
    return FieldError("n", "n must be at most " + std::to_string(c.limits.choices_max));
  c.out.generation.choices = ToUint32(value);
  return std::nullopt;
}

Fault SetStop(const Json& value, const FieldContext& c) {
  std::vector<std::string>& stops = c.out.generation.stop_strings;
  if (!value.is_string() && !value.is_array())
    return FieldError("stop", "stop must be a string or an array of strings");
  if (value.is_array() && value.size() > c.limits.stop_strings_max)
    return FieldError(
        "stop", "stop may hold at most " + std::to_string(c.limits.stop_strings_max) + " strings");
  const Json list = value.is_array() ? value : Json::array({value});
  for (const Json& item : list) {
    if (!item.is_string()) return FieldError("stop", "stop must hold strings only");
    stops.push_back(item.get<std::string>());
    if (stops.back().empty()) return FieldError("stop", "a stop string must not be empty");
    if (stops.back().size() > c.limits.stop_bytes_max)
      return FieldError("stop", "a stop string may have at most " +
                                    std::to_string(c.limits.stop_bytes_max) + " bytes");
  }
  return std::nullopt;
}

Fault SetStopTokens(const Json& value, const FieldContext& c) {
  if (value.size() > kStopTokensMax)
    return FieldError("stop_token_ids",
                      "stop_token_ids may hold at most " + std::to_string(kStopTokensMax) + " ids");
  return ParseTokenIds(value, "stop_token_ids", c.out.generation.stop_token_ids);
}

Fault SetLogitBias(const Json& value, const FieldContext& c) {
  if (value.size() > c.limits.logit_bias_max)
    return FieldError("logit_bias", "logit_bias may hold at most " +
                                        std::to_string(c.limits.logit_bias_max) + " entries");
  for (const auto& [key, bias] : value.items()) {
    TokenId id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0)
      return FieldError("logit_bias",
                        "logit_bias: \"" + key.substr(0, 32) + "\" is not a token id");
    if (!bias.is_number() || std::abs(bias.get<double>()) > 100)
      return FieldError("logit_bias",
                        "logit_bias of token " + key + " must be a number between -100 and 100");
    c.out.generation.sampling.logit_bias.emplace_back(id, bias.get<float>());
  }
  return std::nullopt;
}

Fault SetStreamOptions(const Json& value, const FieldContext& c) {
  for (const auto& [key, member] : value.items()) {
    bool* target = nullptr;
    if (key == "include_usage") target = &c.out.include_usage;
    if (key == "continuous_usage_stats") target = &c.out.continuous_usage;
    if (target == nullptr || member.is_null()) continue;
    if (!member.is_boolean())
      return FieldError("stream_options." + key, key + " must be true or false");
    *target = member.get<bool>();
  }
  return std::nullopt;
}

Fault SetTopK(const Json& value, const FieldContext& c) {
  c.out.generation.sampling.top_k = std::max(0, static_cast<int32_t>(value.get<double>()));
  return std::nullopt;
}

Fault SetPromptLogprobs(const Json& value, const FieldContext& c) {
  if (value.get<double>() > c.limits.top_logprobs_max)
    return FieldError("prompt_logprobs", "prompt_logprobs must be at most " +
                                             std::to_string(c.limits.top_logprobs_max));
  c.out.prompt_logprobs = ToUint32(value);
  return std::nullopt;
}

// The rows of simple members.
template <auto Member>
Fault SetBool(const Json& value, const FieldContext& c) {
  c.out.*Member = value.get<bool>();
  return std::nullopt;
}
template <auto Member>
Fault SetGenerationBool(const Json& value, const FieldContext& c) {
  c.out.generation.*Member = value.get<bool>();
  return std::nullopt;
}
template <auto Member>
Fault SetSampling(const Json& value, const FieldContext& c) {
  // A number too small for a float must not become the zero that the range excludes.
  const float number = value.get<float>();
  const bool vanished = number == 0.0F && value.get<double>() != 0.0;
  c.out.generation.sampling.*Member = vanished ? std::numeric_limits<float>::min() : number;
  return std::nullopt;
}
Fault SetModel(const Json& value, const FieldContext& c) {
  c.out.generation.model = value.get<std::string>();
  return std::nullopt;
}
Fault SetMaxTokens(const Json& value, const FieldContext& c) {
  c.out.generation.max_tokens = ToUint32(value);
  return std::nullopt;
}
Fault SetMinTokens(const Json& value, const FieldContext& c) {
  c.out.generation.min_tokens = ToUint32(value);
  return std::nullopt;
}
Fault SetTimeout(const Json& value, const FieldContext& c) {
  c.out.generation.timeout_us =
      std::max<int64_t>(1, std::llround(value.get<double>() * static_cast<double>(kSecondUs)));
  return std::nullopt;
}
Fault Ignore(const Json&, const FieldContext&) {
  return std::nullopt;
}

using F = FieldType;
using G = GenerationRequest;
using R = OpenAiRequest;
using S = SamplingParams;

constexpr OpenAiField kSamplingFields[] = {
    {"model", F::kString, "the served one, if there is one only", "which model answers", SetModel},
    {"stream", F::kBool, "false", "answer as server-sent events", SetBool<&R::stream>},
    {"stream_options", F::kObject, "{}", "include_usage, continuous_usage_stats", SetStreamOptions},
    {"min_tokens", F::kInteger, "0", "no end before this many tokens", SetMinTokens, 0, kInt32Max},
    {"temperature", F::kNumber, "1", "0 takes the likeliest token", SetSampling<&S::temperature>, 0,
     100},
    {"top_p", F::kNumber, "1", "nucleus", SetSampling<&S::top_p>, 0, 1, true},
    {"top_k", F::kInteger, "0", "the k likeliest only; 0 or -1 = all", SetTopK, -1, kInt32Max},
    {"min_p", F::kNumber, "0", "at least this share of the likeliest one's probability",
     SetSampling<&S::min_p>, 0, 1},
    {"repetition_penalty", F::kNumber, "1", "over prompt and answer",
     SetSampling<&S::repetition_penalty>, 0, 100, true},
    {"presence_penalty", F::kNumber, "0", "over the answer", SetSampling<&S::presence_penalty>, -2,
     2},
    {"frequency_penalty", F::kNumber, "0", "over the answer", SetSampling<&S::frequency_penalty>,
     -2, 2},
    {"logit_bias", F::kObject, "{}", "token id to bias, -100 to 100", SetLogitBias},
    {"seed", F::kAny, "drawn, and fixed for the request", "the same seed, the same answer",
     SetSeed},
    {"n", F::kInteger, "1", "how many answers", SetChoices, 1},
    {"stop", F::kAny, "none", "string or strings that end the answer", SetStop},
    {"stop_token_ids", F::kArray, "none", "token ids that end the answer", SetStopTokens},
    {"ignore_eos", F::kBool, "false", "go on at the model's end tokens",
     SetGenerationBool<&G::ignore_eos>},
    {"include_stop_str_in_output", F::kBool, "false", "keep the stop string in the text",
     SetGenerationBool<&G::include_stop_in_output>},
    {"skip_special_tokens", F::kBool, "true", "leave control tokens out of the text",
     SetGenerationBool<&G::skip_special_tokens>},
    {"prompt_logprobs", F::kInteger, "none", "log probabilities of the prompt's tokens",
     SetPromptLogprobs, 0},
    {"return_token_ids", F::kBool, "false", "token_ids of the choices, prompt_token_ids",
     SetBool<&R::return_token_ids>},
    {"return_tokens_as_token_ids", F::kBool, "false", "tokens as \"token_id:N\" in logprobs",
     SetBool<&R::tokens_as_ids>},
    {"timeout", F::kNumber, "the server's", "seconds until the request is given up", SetTimeout, 0,
     kTimeoutSecondsMax, true},
    {"max_tokens", F::kInteger, "chat: to the end of the context; completions: 16",
     "tokens of each answer; 0 with echo", SetMaxTokens, 0, kInt32Max},
    {"user", F::kString, "", "ignored", Ignore},
};

bool IsHarmless(const OpenAiField& field, const Json& value) {
  if (field.harmless.empty()) {
    if (value.is_string()) return value.get_ref<const std::string&>().empty();
    return value == Json(false) || (value.is_structured() && value.empty());
  }
  const std::string listed = "|" + std::string(field.harmless) + "|";
  return listed.find("|" + WriteJson(value) + "|") != std::string::npos;
}

Fault Refuse(const OpenAiField& field, const Json& value) {
  if (IsHarmless(field, value)) return std::nullopt;
  const std::string name(field.name);
  const std::string let_in =
      field.harmless.empty() ? "" : ", but for " + std::string(field.harmless);
  return FieldError(name, name + " (" + std::string(field.doc) + ") is not supported" + let_in);
}

// What would change the answer and is not there yet, or never will be. Names, labels and hints that
// change nothing (user, metadata, prediction, prompt_cache_key, ...) are let in like unknown
// fields.
constexpr OpenAiField Refused(std::string_view name, std::string_view doc,
                              std::string_view harmless = {}) {
  OpenAiField field{name, F::kAny, {}, doc, nullptr};
  field.harmless = harmless;
  return field;
}

constexpr OpenAiField kRefusedFields[] = {
    Refused("suffix", "text after the insertion"),
    Refused("functions", "tool calls"),
    Refused("function_call", "tool calls", R"("none"|"auto")"),
    Refused("use_beam_search", "beam search"),
    Refused("length_penalty", "beam search", "1|1.0"),
    Refused("early_stopping", "beam search"),
    Refused("continue_final_message", "going on with the last message"),
    Refused("bad_words", "banned words"),
    Refused("allowed_token_ids", "an allow list"),
    Refused("logits_processors", "code of clients"),
    Refused("logprob_token_ids", "log probabilities of named tokens"),
    Refused("guided_json", "structured output"),
    Refused("guided_regex", "structured output"),
    Refused("guided_choice", "structured output"),
    Refused("guided_grammar", "structured output"),
    Refused("structured_outputs", "structured output"),
    Refused("prompt_embeds", "prompts as embeddings"),
    Refused("truncate_prompt_tokens", "shortening of prompts"),
    Refused("chat_template", "templates of clients"),
    Refused("thinking_token_budget", "reasoning budgets"),
    Refused("include_reasoning", "leaving the reasoning out", "true"),
    Refused("verbosity", "length by a word", R"("medium")"),
    Refused("web_search_options", "web search", "false"),
    Refused("store", "keeping of answers"),
    Refused("service_tier", "tiers of clients", R"("auto"|"default")"),
    Refused("priority", "priorities of clients: the surface's class holds", "0"),
    Refused("cache_salt", "salts of clients: each surface has its own"),
    Refused("kv_transfer_params", "KV transfer by clients"),
    Refused("audio", "speech"),
};

}  // namespace

std::span<const OpenAiField> OpenAiSamplingFields() {
  return kSamplingFields;
}
std::span<const OpenAiField> OpenAiRefusedFields() {
  return kRefusedFields;
}

Fault ApplyField(const OpenAiField& field, const Json& value, const FieldContext& context) {
  if (value.is_null()) return std::nullopt;
  const std::string name(field.name);
  if (field.set == nullptr) return Refuse(field, value);
  if (!HasType(value, field.type))
    return FieldError(name, name + " must be " + std::string(TypeName(field.type)) + ", got " +
                                value.type_name());
  if (value.is_number()) {
    const double number = value.get<double>();
    const bool low = field.min_exclusive ? number <= field.min : number < field.min;
    if (low || number > field.max || !std::isfinite(number))
      return FieldError(name, name + " must be " + Range(field) + ", got " + Shown(number));
  }
  return field.set(value, context);
}

}  // namespace muselet
