// The nouns that all folders share: ids, sampling parameters, stop rules, finish reasons. Plain
// values.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace muselet {

// Index into a model's vocabulary; never negative in a valid sequence.
using TokenId = int32_t;
// A physical KV block, index into one KV group's storage.
using BlockId = uint32_t;

// 128 random bits, drawn by the gateway that owns the request. Unique over the cluster's life.
struct RequestId {
  uint64_t high = 0;
  uint64_t low = 0;

  // 32 lower-case hex digits.
  std::string ToString() const;
  static Result<RequestId> Parse(std::string_view text);
  // Drawn from the operating system's random source.
  static RequestId Random();
  friend auto operator<=>(const RequestId&, const RequestId&) = default;
};

// One of the n answers of a request: the unit that the node batches.
struct SequenceId {
  RequestId request;
  uint32_t choice = 0;
  friend auto operator<=>(const SequenceId&, const SequenceId&) = default;
};

// What a surface's requests are worth when there is not enough for all. Strict order, realtime
// first.
enum class RequestClass : uint8_t { kRealtime = 0, kInteractive = 1, kBatch = 2 };
std::string_view RequestClassName(RequestClass value);  // "realtime", ...

// How the next token is drawn. The order of the steps is fixed (node/engine/sampler.h): logit_bias,
// penalties, bans (min_tokens), temperature, top_k, top_p, min_p, then argmax over logit /
// temperature + Gumbel noise keyed by (seed, choice, position, id). Temperature 0 is argmax of the
// logits; ties go to the lower id.
struct SamplingParams {
  float temperature = 1.0F;         // >= 0
  int32_t top_k = 0;                // 0 = off
  float top_p = 1.0F;               // (0, 1]
  float min_p = 0.0F;               // [0, 1]
  float repetition_penalty = 1.0F;  // > 0; over prompt and answer
  float presence_penalty = 0.0F;    // [-2, 2]; over the answer
  float frequency_penalty = 0.0F;   // [-2, 2]; over the answer
  uint64_t seed = 0;                // fixed at admission, also when the client gave none
  int32_t logprobs = -1;         // -1 none; else the chosen token's and the best n others' logprob
  int32_t prompt_logprobs = -1;  // the same for each prompt token but the first
  std::vector<std::pair<TokenId, float>> logit_bias;
  friend bool operator==(const SamplingParams&, const SamplingParams&) = default;
};

// When a sequence ends, in tokens. Stop strings are text and therefore the gateway's affair.
struct StopRules {
  uint32_t max_tokens = 16;         // generated tokens, >= 1
  uint32_t min_tokens = 0;          // end tokens cannot be drawn before this many
  std::vector<TokenId> end_tokens;  // the token is part of the sequence, not of the text
  friend bool operator==(const StopRules&, const StopRules&) = default;
};

enum class FinishReason : uint8_t {
  kNone = 0,       // still running
  kStop = 1,       // an end token or a stop string
  kLength = 2,     // max_tokens or the model's context
  kCancelled = 3,  // the client went away
  kDeadline = 4,   // the request's time was over
  kError = 5,      // see the message beside it
};
std::string_view FinishReasonName(FinishReason value);  // "stop", "length", ...

struct TokenLogprob {
  TokenId id = 0;
  float logprob =
      0.0F;  // natural log of the model's probability, before bias, penalties and temperature
  friend bool operator==(const TokenLogprob&, const TokenLogprob&) = default;
};

// A generated token. `top` holds the best ids, best first, when logprobs were asked for.
struct SampledToken {
  TokenId id = 0;
  float logprob = 0.0F;
  std::vector<TokenLogprob> top;
  friend bool operator==(const SampledToken&, const SampledToken&) = default;
};

}  // namespace muselet

template <>
struct std::hash<muselet::RequestId> {
  size_t operator()(const muselet::RequestId& id) const noexcept { return id.low ^ id.high; }
};
template <>
struct std::hash<muselet::SequenceId> {
  size_t operator()(const muselet::SequenceId& id) const noexcept {
    return std::hash<muselet::RequestId>()(id.request) + 0x9E3779B97F4A7C15ULL * (id.choice + 1);
  }
};
