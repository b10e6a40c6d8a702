// The one sampling rule: from a row of logits to a token, the same on every replica.
//
// In this order:
//   1. logit_bias        logit += bias
//   2. penalties         repetition, for each id in prompt or answer: logit / r if logit > 0, else
//                        logit * r; then for each id in the answer: logit -= presence + frequency *
//                        count (as Hugging Face's RepetitionPenaltyLogitsProcessor and OpenAI's
//                        definition)
//   3. bans              end tokens while fewer than min_tokens were generated: -inf
//   4. temperature 0     argmax, ties to the lower id; done
//   5. temperature       x = logit / T
//   6. top_k             the k greatest x, ties to the lower id
//   7. top_p             the shortest run of the greatest x whose probability, among what is left,
//                        reaches top_p
//   8. min_p             ids with at least min_p times the probability of the best
//   9. draw              argmax of x + noise (node/engine/gumbel_noise), ties to the lower id
//
// Logprobs are of the raw logits' log-softmax, whatever the rule did to them. Arithmetic after step
// 3 is double, sums run in id order or best-first order: no result depends on the machine.
//
// Step thread only; scratch memory is reused, so a draw without logprobs does not allocate.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "node/engine/gumbel_noise.h"
#include "node/engine/penalty_counts.h"

namespace muselet {

// kInvalidArgument naming the parameter if it is outside the range that base/types.h gives it.
Status CheckSampling(const SamplingParams& params, uint32_t vocab_size);

// What the rule knows of the sequence whose next token it draws.
struct DrawContext {
  const SamplingParams& params;
  const StopRules& stop;
  uint32_t choice = 0;
  uint32_t prompt_count = 0;
  uint32_t token_count = 0;     // prompt + answer: the position of the token to be drawn
  const PenaltyCounts& counts;  // caught up with the tokens if UsesCounts
};

class Sampler {
 public:
  // Rows have `vocab_size` logits.
  explicit Sampler(uint32_t vocab_size);

  // kInternal if no id has a finite logit.
  Status Draw(std::span<const float> logits, const DrawContext& context, SampledToken* token);

  // `id`'s logprob and the best `top_count` ids', best first, ties to the lower id.
  void Logprobs(std::span<const float> logits, TokenId id, uint32_t top_count, SampledToken* token);

  static bool UsesCounts(const SamplingParams& params);

 private:
  std::span<const float> Adjust(std::span<const float> logits, const DrawContext& context);
  TokenId DrawFromAll(std::span<const float> logits, TokenId best, const DrawContext& context);
  TokenId DrawFromSurvivors(std::span<const float> logits, const DrawContext& context);
  void KeepTopK(std::span<const float> logits, uint32_t top_k);
  void KeepTopP(std::span<const float> logits, const SamplingParams& params);
  void KeepTopPOfAll(std::span<const float> logits, float best, const SamplingParams& params);

  GumbelNoise noise_;
  std::vector<float> adjusted_;
  std::vector<TokenId> survivors_;  // best first
};

}  // namespace muselet
