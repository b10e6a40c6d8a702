// The promise of the project, on the real model: a request's tokens do not depend on what else is
// computed, on how its prompt is cut, or on what the prefix cache had. Compared are the tokens and,
// bit for bit, their logprobs, so that a difference in the last place is seen too.
#include <gtest/gtest.h>

#include <bit>
#include <condition_variable>
#include <map>

#include "node/cpu/cpu_ops.h"
#include "node/engine/step_loop.h"
#include "node/model/checkpoint.h"
#include "node/model/load_model.h"
#include "node/model/transformer.h"
#include "tests/node/model/row_count_ops.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

constexpr uint32_t kPromptTokens = 96;
constexpr uint32_t kAnswerTokens = 12;
constexpr uint64_t kGreedy = 1;
constexpr uint64_t kSampled = 2;
constexpr uint32_t kCrowd = 32;

Submit MakeSubmit(uint64_t number, uint32_t prompt_tokens) {
  Submit submit;
  submit.sequence = {{0, number}, 0};
  uint64_t state = number;
  for (uint32_t i = 0; i < prompt_tokens; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    submit.prompt.push_back(static_cast<TokenId>(1000 + (state >> 33) % 20'000));
  }
  submit.stop.max_tokens = kAnswerTokens;
  submit.sampling.seed = 1234;
  submit.sampling.temperature = number == kGreedy ? 0.0F : 0.8F;
  submit.sampling.logprobs = 1;
  return submit;
}

using Answers = std::map<uint64_t, std::vector<SampledToken>>;

// One step loop over the model, with metrics of its own.
class Server {
 public:
  Server(std::shared_ptr<Model> model, uint32_t chunk)
      : loop_(std::move(model), Options(chunk), metrics_, Clock::Real(),
              [this](std::vector<TokenUpdate> updates) { Take(updates); }) {}

  // Submits all at once, waits for all.
  Answers Ask(const std::vector<Submit>& submits) {
    std::vector<StepCommand> commands;
    for (const Submit& submit : submits) commands.emplace_back(submit);
    loop_.Push(std::move(commands));
    if (!started_) loop_.Start();
    started_ = true;
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, std::chrono::minutes(5), [&] { return ended_ == submits.size(); }));
    ended_ = 0;
    return std::exchange(answers_, {});
  }

  double Metric(const std::string& name) const {
    const std::string text = registry_.Text();
    const size_t at = text.find("\n" + name + "{");
    return at == std::string::npos ? -1 : std::stod(text.substr(text.find("} ", at) + 2));
  }

 private:
  static BatchOptions Options(uint32_t chunk) {
    BatchOptions options;
    options.prefill_chunk_max = chunk;
    options.step_target_us = options.step_max_us =
        3'600'000'000;  // chunks are cut by their limit alone
    return options;
  }
  void Take(const std::vector<TokenUpdate>& updates) {
    const std::lock_guard lock(mutex_);
    for (const TokenUpdate& update : updates) {
      EXPECT_TRUE(update.error.empty()) << update.error;
      auto& answer = answers_[update.sequence.request.low];
      answer.insert(answer.end(), update.tokens.begin(), update.tokens.end());
      if (update.finish != FinishReason::kNone) ++ended_;
    }
    changed_.notify_all();
  }

  MetricRegistry registry_;
  NodeMetrics metrics_{registry_, "n0", "r0", "m"};
  std::mutex mutex_;
  std::condition_variable changed_;
  Answers answers_;
  size_t ended_ = 0;
  bool started_ = false;
  StepLoop loop_;
};

// In how many places two answers differ; logprobs count by their bits.
size_t Differences(const std::vector<SampledToken>& a, const std::vector<SampledToken>& b) {
  if (a.size() != b.size() || a.empty()) return 1000;
  size_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same =
        a[i].id == b[i].id &&
        std::bit_cast<uint32_t>(a[i].logprob) == std::bit_cast<uint32_t>(b[i].logprob) &&
        a[i].top == b[i].top;
    if (!same) ++count;
  }
  return count;
}

std::vector<Submit> CrowdOf32() {
  std::vector<Submit> crowd = {MakeSubmit(kGreedy, kPromptTokens),
                               MakeSubmit(kSampled, kPromptTokens)};
  while (crowd.size() < kCrowd) crowd.push_back(MakeSubmit(crowd.size() + 1, 9));
  return crowd;
}

// Differences between the two requests alone and in every company; 0 is the promise.
size_t DifferencesInCompany(const std::shared_ptr<Model>& model,
                            const std::vector<uint32_t>& chunks) {
  Answers alone;
  for (const uint64_t number : {kGreedy, kSampled}) {
    Server server(model, 256);
    alone.merge(server.Ask({MakeSubmit(number, kPromptTokens)}));
    EXPECT_EQ(server.Metric("muselet_prefill_chunk_rows_count"), 1);
    // Once more: now all but the last block of the prompt is in the cache.
    const Answers again = server.Ask({MakeSubmit(number, kPromptTokens)});
    EXPECT_EQ(server.Metric("muselet_prefix_cache_hit_tokens_total"), kPromptTokens - 16);
    EXPECT_EQ(server.Metric("muselet_prefill_tokens_total"), kPromptTokens + 16);
    if (const size_t count = Differences(alone[number], again.at(number))) return count;
  }
  size_t count = 0;
  Server crowd(model, 256);
  const Answers together = crowd.Ask(CrowdOf32());
  EXPECT_GT(
      crowd.Metric("muselet_step_sequences_sum") / crowd.Metric("muselet_step_sequences_count"),
      16);
  for (const uint64_t number : {kGreedy, kSampled})
    count += Differences(alone[number], together.at(number));
  for (const uint32_t chunk : chunks) {
    Server server(model, chunk);
    const Answers cut =
        server.Ask({MakeSubmit(kGreedy, kPromptTokens), MakeSubmit(kSampled, kPromptTokens)});
    EXPECT_EQ(server.Metric("muselet_prefill_chunk_rows_count"),
              2.0 * ((kPromptTokens + chunk - 1) / chunk));
    EXPECT_EQ(server.Metric("muselet_prefill_chunk_rows_sum"), 2.0 * kPromptTokens);
    for (const uint64_t number : {kGreedy, kSampled})
      count += Differences(alone[number], cut.at(number));
  }
  return count;
}

TEST(Exactness, TokensAreTheSameAloneInACrowdInChunksAndFromTheCache) {
  SKIP_WITHOUT_MODEL(path);
  auto checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  auto model = LoadModel(*std::move(checkpoint), {}, {});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(DifferencesInCompany(*std::move(model), {1, 7, 64}), 0U);
}

TEST(Exactness, AnOpThatSumsByTheRowCountIsFound) {
  SKIP_WITHOUT_MODEL(path);
  auto checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  auto ops = cpu::MakeCpuOps({});
  ASSERT_TRUE(ops.ok()) << ops.status().ToString();
  auto model = Transformer::Create(
      **checkpoint, {}, std::make_unique<testing::RowCountDependentOps>(*std::move(ops), 2), {});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_GT(DifferencesInCompany(std::shared_ptr<Model>(*std::move(model)), {}), 0U);
}

}  // namespace
}  // namespace muselet
