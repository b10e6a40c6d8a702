// One draw from a row of SmolLM2-135M's logits (49,152), by rule.
#include <string>

#include "base/check.h"
#include "node/engine/sampler.h"
#include "tests/bench/op_bench.h"

namespace muselet::bench {
namespace {

constexpr uint32_t kVocabulary = 49152;

void Draw(::benchmark::State& state, const SamplingParams& params) {
  RandomRows logits(1, kVocabulary, 1);
  for (float& logit : logits.values) logit *= 4.0F;
  Sampler sampler(kVocabulary);
  PenaltyCounts counts;
  counts.Reset(64);
  const StopRules stop;
  uint32_t position = 32;
  const double start = Now();
  for (auto _ : state) {
    SampledToken token;
    const DrawContext context{params, stop, 0, 32, ++position, counts};
    const Status status = sampler.Draw(logits.values, context, &token);
    CHECK(status.ok(), status.message());
    if (params.logprobs >= 0) sampler.Logprobs(logits.values, token.id, 5, &token);
    ::benchmark::DoNotOptimize(token);
  }
  Report(state, Now() - start, 1, kVocabulary * sizeof(float), 0, Arithmetic::kOther);
}

void RegisterDraw(const char* name, const SamplingParams& params) {
  ::benchmark::RegisterBenchmark(name,
                                 [params](::benchmark::State& state) { Draw(state, params); });
}

}  // namespace

void RegisterSampling() {
  SamplingParams params;
  params.seed = 1;
  RegisterDraw("sampling/temperature", params);
  params.top_k = 40;
  RegisterDraw("sampling/top_k", params);
  params.top_p = 0.9F;
  RegisterDraw("sampling/top_k_top_p", params);
  params.top_k = 0;
  RegisterDraw("sampling/top_p", params);
  params = {};
  params.temperature = 0.0F;
  RegisterDraw("sampling/greedy", params);
  params.logprobs = 5;
  RegisterDraw("sampling/greedy_logprobs", params);
}

}  // namespace muselet::bench
