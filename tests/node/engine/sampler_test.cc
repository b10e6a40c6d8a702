#include "node/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "node/engine/portable_math.h"

namespace muselet {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(size_t count, float scale, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

struct Row {
  SamplingParams params;
  StopRules stop;
  uint32_t choice = 0;
  std::vector<TokenId> tokens = {0};
  size_t prompt_count = 1;

  SampledToken Draw(Sampler& sampler, std::span<const float> logits) const {
    PenaltyCounts counts;
    counts.Reset(tokens.size());
    counts.CatchUp(tokens, prompt_count);
    const DrawContext context{params,
                              stop,
                              choice,
                              static_cast<uint32_t>(prompt_count),
                              static_cast<uint32_t>(tokens.size()),
                              counts};
    SampledToken token;
    const Status status = sampler.Draw(logits, context, &token);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return token;
  }
};

// The rule as it is written, without any shortcut.
TokenId NaiveDraw(const std::vector<float>& logits, const Row& row) {
  const double t = row.params.temperature;
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
  if (row.params.top_k > 0) ids.resize(std::min<size_t>(ids.size(), row.params.top_k));
  const double best = logits[ids[0]];
  const auto weight = [&](TokenId id) { return PortableExp((logits[id] - best) / t); };
  if (row.params.top_p < 1) {
    double total = 0;
    for (const TokenId id : ids) total += weight(id);
    double sum = 0;
    size_t kept = 0;
    while (kept < ids.size() && sum < row.params.top_p * total) sum += weight(ids[kept++]);
    ids.resize(std::max<size_t>(kept, 1));
  }
  TokenId winner = -1;
  double winner_score = 0;
  std::sort(ids.begin(), ids.end());
  for (const TokenId id : ids) {
    const double x = logits[id] / t;
    if (row.params.min_p > 0 && x < best / t + PortableLog(row.params.min_p)) continue;
    const double score =
        x + GumbelNoise::Draw(
                {row.params.seed, row.choice, static_cast<uint32_t>(row.tokens.size())}, id);
    if (winner < 0 || score > winner_score) {
      winner = id;
      winner_score = score;
    }
  }
  return winner;
}

TEST(PortableMath, AgreesWithTheLibrary) {
  for (double x = -700; x < 700; x += 0.37) {
    EXPECT_NEAR(PortableExp(x) / std::exp(x), 1.0, 1e-13) << x;
  }
  for (double x = 1e-12; x < 1e12; x *= 1.07) {
    EXPECT_NEAR(PortableLog(x), std::log(x), 1e-14 * std::max(1.0, std::fabs(std::log(x)))) << x;
  }
  EXPECT_EQ(PortableLog(1.0), 0.0);
  EXPECT_EQ(PortableExp(0.0), 1.0);
}

TEST(GumbelNoise, StaysWithinItsBounds) {
  EXPECT_LE(-PortableLog(-PortableLog(1 - 0x1p-33)), GumbelNoise::kMax);
  EXPECT_GE(-PortableLog(-PortableLog(0x1p-33)), GumbelNoise::kMin);
}

TEST(GumbelNoise, ShortcutNeverHidesAWinner) {
  const GumbelNoise noise;
  for (TokenId id = 0; id < 200'000; ++id) {
    const GumbelNoise::Key key{42, 0, 7};
    const double full = GumbelNoise::Draw(key, id);
    for (const double least : {-2.0, 0.0, 0.5, 1.0, 3.7, 9.0, 22.0}) {
      const double quick = noise.DrawIfAbove(key, id, least);
      if (full > least) {
        ASSERT_EQ(quick, full);
      } else {
        ASSERT_LE(quick, least);
      }
    }
  }
}

TEST(Sampler, TemperatureZeroTakesTheBestAndTheLowerOfEquals) {
  Sampler sampler(40);
  std::vector<float> logits(40, -1.0F);
  logits[17] = logits[33] = 2.5F;
  Row row;
  row.params.temperature = 0;
  EXPECT_EQ(row.Draw(sampler, logits).id, 17);
  logits[39] = 3.0F;
  EXPECT_EQ(row.Draw(sampler, logits).id, 39);
}

TEST(Sampler, DrawsWhatTheRuleSaysWithAndWithoutFilters) {
  struct Filters {
    float temperature;
    int32_t top_k;
    float top_p;
    float min_p;
  };
  const std::vector<Filters> cases = {{1, 0, 1, 0},     {0.8F, 0, 1, 0},         {0.1F, 0, 1, 0},
                                      {5, 0, 1, 0},     {1, 40, 1, 0},           {1, 1, 1, 0},
                                      {1, 5000, 1, 0},  {0.8F, 0, 0.95F, 0},     {2, 0, 0.5F, 0},
                                      {1, 0, 1e-6F, 0}, {1, 50, 0.9F, 0},        {1, 0, 1, 0.05F},
                                      {1, 0, 1, 1},     {1.5F, 100, 0.9F, 0.02F}};
  Sampler sampler(3000);
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const auto logits = RandomLogits(3000, 1.0F + static_cast<float>(seed % 5), seed);
    for (const Filters& f : cases) {
      Row row;
      row.params.temperature = f.temperature;
      row.params.top_k = f.top_k;
      row.params.top_p = f.top_p;
      row.params.min_p = f.min_p;
      row.params.seed = seed * 1000003ULL;
      row.choice = seed % 3;
      row.tokens.assign(1 + seed, 5);
      ASSERT_EQ(row.Draw(sampler, logits).id, NaiveDraw(logits, row))
          << seed << " T " << f.temperature << " k " << f.top_k << " p " << f.top_p << " m "
          << f.min_p;
    }
  }
}

TEST(Sampler, DrawsInProportionToTheProbabilities) {
  const std::vector<float> logits = {0.0F, 1.0F, 2.0F, -1.0F, -kInf};
  Sampler sampler(logits.size());
  Row row;
  row.params.seed = 99;
  std::vector<double> seen(logits.size());
  constexpr int kDraws = 20'000;
  for (int i = 0; i < kDraws; ++i) {
    row.tokens.assign(1 + i % 1000, 0);
    row.params.seed = 99 + static_cast<uint64_t>(i) / 1000;
    seen[row.Draw(sampler, logits).id] += 1.0 / kDraws;
  }
  double total = 0;
  for (const float logit : logits) total += std::exp(logit);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double p = std::exp(logits[i]) / total;
    EXPECT_NEAR(seen[i], p, 4 * std::sqrt(p * (1 - p) / kDraws) + 1e-9) << i;
  }
}

TEST(Sampler, SeedChoiceAndPositionEachChangeTheDraw) {
  const std::vector<float> logits(1000, 0.0F);
  Sampler sampler(1000);
  Row row;
  row.params.seed = 1;
  const TokenId first = row.Draw(sampler, logits).id;
  EXPECT_EQ(row.Draw(sampler, logits).id, first);
  Row other = row;
  other.params.seed = 2;
  EXPECT_NE(other.Draw(sampler, logits).id, first);
  other = row;
  other.choice = 1;
  EXPECT_NE(other.Draw(sampler, logits).id, first);
  other = row;
  other.tokens = {0, 0};
  EXPECT_NE(other.Draw(sampler, logits).id, first);
}

TEST(Sampler, PenaltiesFollowPromptAndAnswer) {
  Sampler sampler(6);
  Row row;
  row.params.temperature = 0;
  row.tokens = {0, 1, 1, 2};  // prompt 0 1, answer 1 2
  row.prompt_count = 2;
  row.params.repetition_penalty = 2;  // 0: 4 -> 2; 1: 3 -> 1.5; 2: -1 -> -2
  EXPECT_EQ(row.Draw(sampler, std::vector<float>{4, 3, -1, 2.1F, -9, -9}).id, 3);
  EXPECT_EQ(row.Draw(sampler, std::vector<float>{4.3F, 3, -1, 2.1F, -9, -9}).id, 0);
  EXPECT_EQ(row.Draw(sampler, std::vector<float>{-9, -9, -1, -9, -1.9F, -9}).id, 4);
  row.params.repetition_penalty = 1;
  row.params.presence_penalty = 1;  // 1 and 2 lose 1; 0 stands in the prompt only
  EXPECT_EQ(row.Draw(sampler, std::vector<float>{3, 3.9F, 3.9F, 0, 0, 0}).id, 0);
  row.tokens = {0, 1, 1, 1, 2};
  row.params.presence_penalty = 0;
  row.params.frequency_penalty = 1;  // 1 loses 2, 2 loses 1
  EXPECT_EQ(row.Draw(sampler, std::vector<float>{0, 3.5F, 3, 0, 0, 0}).id, 2);
}

TEST(Sampler, ReplayedCountsEqualGrownOnes) {
  std::vector<TokenId> tokens = {5, 5, 9};
  PenaltyCounts grown;
  grown.Reset(16);
  grown.CatchUp(tokens, 3);
  for (const TokenId next : {9, 1, 5, 1}) {
    tokens.push_back(next);
    grown.CatchUp(tokens, 3);
  }
  PenaltyCounts replayed;
  replayed.Reset(16);
  replayed.CatchUp(tokens, 3);
  ASSERT_EQ(grown.entries().size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(grown.entries()[i].id, replayed.entries()[i].id);
    EXPECT_EQ(grown.entries()[i].in_answer, replayed.entries()[i].in_answer);
  }
}

TEST(Sampler, BiasAndMinTokensMoveTheChoice) {
  Sampler sampler(4);
  Row row;
  row.params.temperature = 0;
  row.stop.end_tokens = {3};
  const std::vector<float> logits = {1, 2, 0, 5};
  EXPECT_EQ(row.Draw(sampler, logits).id, 3);
  row.stop.min_tokens = 1;
  EXPECT_EQ(row.Draw(sampler, logits).id, 1);
  row.params.logit_bias = {{0, 1.5F}};
  EXPECT_EQ(row.Draw(sampler, logits).id, 0);
  row.tokens = {0, 0};  // one token was generated: the ban is over
  EXPECT_EQ(row.Draw(sampler, logits).id, 3);
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
  const auto logits = RandomLogits(500, 3, 11);
  Sampler sampler(500);
  Row row;
  row.params.temperature = 0.5F;
  row.params.logit_bias = {{7, 100.0F}};
  row.params.logprobs = 4;
  const SampledToken token = row.Draw(sampler, logits);
  EXPECT_EQ(token.id, 7);
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  EXPECT_NEAR(token.logprob, logits[7] - std::log(total), 1e-5);
  ASSERT_EQ(token.top.size(), 4U);
  EXPECT_EQ(token.top[0].id, std::max_element(logits.begin(), logits.end()) - logits.begin());
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(token.top[i].logprob, logits[token.top[i].id] - std::log(total), 1e-5);
    if (i > 0) {
      EXPECT_GE(token.top[i - 1].logprob, token.top[i].logprob);
    }
  }
}

TEST(Sampler, EqualLogprobsGoByTheLowerId) {
  Sampler sampler(8);
  SampledToken token;
  sampler.Logprobs(std::vector<float>{1, 2, 2, 2, 0, 2, 1, 2}, 0, 3, &token);
  ASSERT_EQ(token.top.size(), 3U);
  EXPECT_EQ(token.top[0].id, 1);
  EXPECT_EQ(token.top[1].id, 2);
  EXPECT_EQ(token.top[2].id, 3);
}

TEST(Sampler, NoFiniteLogitIsAFaultNotAToken) {
  Sampler sampler(3);
  PenaltyCounts counts;
  const SamplingParams params;
  const StopRules stop;
  SampledToken token;
  const std::vector<float> logits = {NAN, -kInf, NAN};
  EXPECT_EQ(sampler.Draw(logits, {params, stop, 0, 1, 1, counts}, &token).code(),
            StatusCode::kInternal);
}

TEST(CheckSampling, NamesTheParameterAtFault) {
  const auto fault = [](auto change) {
    SamplingParams params;
    change(params);
    const Status status = CheckSampling(params, 100);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message().substr(0, status.message().find(':'));
  };
  EXPECT_TRUE(CheckSampling({}, 100).ok());
  EXPECT_EQ(fault([](SamplingParams& p) { p.temperature = NAN; }), "temperature");
  EXPECT_EQ(fault([](SamplingParams& p) { p.top_k = -1; }), "top_k");
  EXPECT_EQ(fault([](SamplingParams& p) { p.top_p = 0; }), "top_p");
  EXPECT_EQ(fault([](SamplingParams& p) { p.min_p = 1.1F; }), "min_p");
  EXPECT_EQ(fault([](SamplingParams& p) { p.repetition_penalty = 0; }), "repetition_penalty");
  EXPECT_EQ(fault([](SamplingParams& p) { p.presence_penalty = -2.1F; }), "presence_penalty");
  EXPECT_EQ(fault([](SamplingParams& p) { p.frequency_penalty = 3; }), "frequency_penalty");
  EXPECT_EQ(fault([](SamplingParams& p) { p.logprobs = 101; }), "logprobs");
  EXPECT_EQ(fault([](SamplingParams& p) { p.logit_bias = {{100, 1.0F}}; }), "logit_bias");
  EXPECT_EQ(fault([](SamplingParams& p) { p.logit_bias = {{1, kInf}}; }), "logit_bias");
}

}  // namespace
}  // namespace muselet
