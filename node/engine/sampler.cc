#include "node/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "node/engine/portable_math.h"

namespace muselet {
namespace {

constexpr float kNoLogit = -std::numeric_limits<float>::infinity();

// Id of the greatest logit, the lowest of equals; NaN never wins. -1 if none is finite.
TokenId ArgMax(std::span<const float> logits) {
  constexpr size_t kLanes = 16;  // independent maxima, so that the compiler can use vectors
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, kNoLogit);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      lanes[j] = logits[i + j] > lanes[j] ? logits[i + j] : lanes[j];
    }
  }
  float best = kNoLogit;
  for (const float lane : lanes) best = std::max(best, lane);
  for (; i < logits.size(); ++i) best = logits[i] > best ? logits[i] : best;
  if (!std::isfinite(best)) return -1;
  return static_cast<TokenId>(std::find(logits.begin(), logits.end(), best) - logits.begin());
}

bool HasAdjustments(const DrawContext& context) {
  return !context.params.logit_bias.empty() || Sampler::UsesCounts(context.params) ||
         context.token_count - context.prompt_count < context.stop.min_tokens;
}

// Best first; equals by id.
auto BestFirst(std::span<const float> logits) {
  return [logits](TokenId a, TokenId b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
}

Status OutOfRange(const std::string& name, double value, const std::string& range) {
  return InvalidArgument(name + ": is " + std::to_string(value) + ", must be " + range);
}

}  // namespace

Status CheckSampling(const SamplingParams& params, uint32_t vocab_size) {
  // Negated, so that NaN fails too.
  if (!(params.temperature >= 0 && params.temperature <= 1e6F)) {
    return OutOfRange("temperature", params.temperature, "at least 0");
  }
  if (params.top_k < 0) return OutOfRange("top_k", params.top_k, "at least 0");
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    return OutOfRange("top_p", params.top_p, "above 0 and at most 1");
  }
  if (!(params.min_p >= 0 && params.min_p <= 1)) {
    return OutOfRange("min_p", params.min_p, "from 0 to 1");
  }
  if (!(params.repetition_penalty > 0 && params.repetition_penalty <= 1e6F)) {
    return OutOfRange("repetition_penalty", params.repetition_penalty, "above 0");
  }
  if (!(std::fabs(params.presence_penalty) <= 2)) {
    return OutOfRange("presence_penalty", params.presence_penalty, "from -2 to 2");
  }
  if (!(std::fabs(params.frequency_penalty) <= 2)) {
    return OutOfRange("frequency_penalty", params.frequency_penalty, "from -2 to 2");
  }
  const auto vocab = static_cast<int64_t>(vocab_size);
  if (params.logprobs > vocab) return OutOfRange("logprobs", params.logprobs, "the vocabulary's");
  if (params.prompt_logprobs > vocab) {
    return OutOfRange("prompt_logprobs", params.prompt_logprobs, "the vocabulary's");
  }
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab) {
      return InvalidArgument("logit_bias: token id " + std::to_string(id) +
                             " is outside the vocabulary of " + std::to_string(vocab));
    }
    if (!std::isfinite(bias)) return OutOfRange("logit_bias", bias, "finite");
  }
  return OkStatus();
}

Sampler::Sampler(uint32_t vocab_size) : adjusted_(vocab_size) {
  survivors_.reserve(vocab_size);
}

bool Sampler::UsesCounts(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.presence_penalty != 0 ||
         params.frequency_penalty != 0;
}

// Steps 1 to 3; the logits themselves where these change nothing.
std::span<const float> Sampler::Adjust(std::span<const float> logits, const DrawContext& context) {
  if (!HasAdjustments(context)) return logits;
  const SamplingParams& params = context.params;
  std::copy(logits.begin(), logits.end(), adjusted_.begin());
  for (const auto& [id, bias] : params.logit_bias) adjusted_[id] += bias;
  if (UsesCounts(params)) {
    for (const PenaltyCounts::Entry& entry : context.counts.entries()) {
      float& logit = adjusted_[entry.id];
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      if (entry.in_answer == 0) continue;
      logit -=
          params.presence_penalty + params.frequency_penalty * static_cast<float>(entry.in_answer);
    }
  }
  if (context.token_count - context.prompt_count < context.stop.min_tokens) {
    for (const TokenId id : context.stop.end_tokens) {
      if (id >= 0 && static_cast<size_t>(id) < adjusted_.size()) adjusted_[id] = kNoLogit;
    }
  }
  return adjusted_;
}

Status Sampler::Draw(std::span<const float> logits, const DrawContext& context,
                     SampledToken* token) {
  const SamplingParams& params = context.params;
  const std::span<const float> adjusted = Adjust(logits, context);
  const TokenId best = ArgMax(adjusted);
  if (best < 0) return Internal("the model gave no finite logit");
  if (params.temperature == 0) {
    token->id = best;
  } else if (params.top_k > 0 && static_cast<size_t>(params.top_k) < adjusted.size()) {
    KeepTopK(adjusted, static_cast<uint32_t>(params.top_k));
    KeepTopP(adjusted, params);
    token->id = DrawFromSurvivors(adjusted, context);
  } else if (params.top_p < 1) {
    KeepTopPOfAll(adjusted, adjusted[best], params);
    token->id = DrawFromSurvivors(adjusted, context);
  } else {
    token->id = DrawFromAll(adjusted, best, context);
  }
  if (params.logprobs >= 0) {
    Logprobs(logits, token->id, static_cast<uint32_t>(params.logprobs), token);
  }
  return OkStatus();
}

void Sampler::KeepTopK(std::span<const float> logits, uint32_t top_k) {
  survivors_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) survivors_[i] = static_cast<TokenId>(i);
  const auto better = BestFirst(logits);
  std::nth_element(survivors_.begin(), survivors_.begin() + top_k, survivors_.end(), better);
  survivors_.resize(top_k);
  std::sort(survivors_.begin(), survivors_.end(), better);
}

// Cuts the survivors, best first, where their probability among themselves reaches top_p.
void Sampler::KeepTopP(std::span<const float> logits, const SamplingParams& params) {
  if (params.top_p >= 1) return;
  const double temperature = params.temperature;
  const double best = logits[survivors_[0]];
  double total = 0;
  for (const TokenId id : survivors_) total += PortableExp((logits[id] - best) / temperature);
  double sum = 0;
  size_t kept = 0;
  while (kept < survivors_.size() && sum < params.top_p * total) {
    sum += PortableExp((logits[survivors_[kept++]] - best) / temperature);
  }
  survivors_.resize(std::max<size_t>(kept, 1));
}

// The same without a top_k before it: sorts only the head of the vocabulary, as much as it takes.
void Sampler::KeepTopPOfAll(std::span<const float> logits, float best,
                            const SamplingParams& params) {
  const double temperature = params.temperature;
  double total = 0;
  for (const float logit : logits) {
    const double x = (static_cast<double>(logit) - best) / temperature;
    if (x > -40) total += PortableExp(x);  // less is nothing, even a vocabulary full of it
  }
  for (double depth = 4;; depth *= 4) {
    const double least = best - depth * temperature;
    survivors_.clear();
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] >= least) survivors_.push_back(static_cast<TokenId>(i));
    }
    std::sort(survivors_.begin(), survivors_.end(), BestFirst(logits));
    double sum = 0;
    size_t kept = 0;
    while (kept < survivors_.size() && sum < params.top_p * total) {
      sum += PortableExp((static_cast<double>(logits[survivors_[kept++]]) - best) / temperature);
    }
    if (sum < params.top_p * total && depth < 60) continue;
    survivors_.resize(std::max<size_t>(kept, 1));
    return;
  }
}

TokenId Sampler::DrawFromSurvivors(std::span<const float> logits, const DrawContext& context) {
  const SamplingParams& params = context.params;
  const GumbelNoise::Key key{params.seed, context.choice, context.token_count};
  const double temperature = params.temperature;
  const double top = logits[survivors_[0]] / temperature;
  const double least =
      params.min_p > 0 ? top + PortableLog(params.min_p) : -std::numeric_limits<double>::infinity();
  TokenId winner = -1;
  double best = 0;
  for (const TokenId id : survivors_) {
    const double x = logits[id] / temperature;
    if (x < least || !std::isfinite(x)) continue;
    const double score = x + GumbelNoise::Draw(key, id);
    if (winner < 0 || score > best || (score == best && id < winner)) {
      winner = id;
      best = score;
    }
  }
  return winner;
}

TokenId Sampler::DrawFromAll(std::span<const float> logits, TokenId top,
                             const DrawContext& context) {
  const SamplingParams& params = context.params;
  const GumbelNoise::Key key{params.seed, context.choice, context.token_count};
  const double temperature = params.temperature;
  const double top_x = logits[top] / temperature;
  double best = top_x + GumbelNoise::Draw(key, top);
  TokenId winner = top;
  const double min_p_x = params.min_p > 0 ? top_x + PortableLog(params.min_p)
                                          : -std::numeric_limits<double>::infinity();
  // In units of logits and a little too low, so that the loop below is a comparison of floats.
  const auto floor_logit = [&] {
    const double x = std::max(best - GumbelNoise::kMax, min_p_x);
    const double logit = x * temperature;
    return static_cast<float>(logit - (std::fabs(logit) + 1) * 1e-6);
  };
  float least = floor_logit();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] >= least)) continue;
    const auto id = static_cast<TokenId>(i);
    const double x = logits[i] / temperature;
    if (x < min_p_x || !std::isfinite(x) || id == top) continue;
    const double score = x + noise_.DrawIfAbove(key, id, best - x);
    if (score > best || (score == best && id < winner)) {
      winner = id;
      best = score;
      least = floor_logit();
    }
  }
  return winner;
}

void Sampler::Logprobs(std::span<const float> logits, TokenId id, uint32_t top_count,
                       SampledToken* token) {
  const TokenId best = ArgMax(logits);
  const double best_logit = best < 0 ? 0.0 : logits[best];
  double total = 0;
  for (const float logit : logits) total += PortableExp(static_cast<double>(logit) - best_logit);
  const double log_total = best_logit + PortableLog(std::max(total, 1.0));
  const auto logprob = [&](TokenId of) {
    return static_cast<float>(static_cast<double>(logits[of]) - log_total);
  };
  token->id = id;
  token->logprob = logprob(id);
  token->top.clear();
  if (top_count == 0) return;
  const auto better = BestFirst(logits);
  survivors_.clear();  // a heap, the worst of the best on top
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto candidate = static_cast<TokenId>(i);
    if (survivors_.size() == top_count) {
      if (!better(candidate, survivors_.front())) continue;
      std::pop_heap(survivors_.begin(), survivors_.end(), better);
      survivors_.pop_back();
    }
    survivors_.push_back(candidate);
    std::push_heap(survivors_.begin(), survivors_.end(), better);
  }
  std::sort_heap(survivors_.begin(), survivors_.end(), better);
  for (const TokenId top : survivors_) token->top.push_back({top, logprob(top)});
}

}  // namespace muselet
