// The step loop over engines of several stages, late and forgetful ones: every stream is the one
// that a single undisturbed rank gives.
#include "node/engine/step_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <map>
#include <random>

#include "node/engine/step_loop.h"
#include "tests/node/engine/pipeline_engine.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::PipelineEngine;
using testing::PipelineOptions;
using testing::ToyModel;

struct Answer {
  std::vector<SampledToken> tokens;
  std::vector<SampledToken> prompt_logprobs;
  TokenUpdate last;
};
using Answers = std::map<uint64_t, Answer>;

bool SameTokens(const std::vector<SampledToken>& a, const std::vector<SampledToken>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const SampledToken& left, const SampledToken& right) {
                      return left.id == right.id && left.top == right.top &&
                             std::bit_cast<uint32_t>(left.logprob) ==
                                 std::bit_cast<uint32_t>(right.logprob);
                    });
}

std::vector<TokenId> Ids(const std::vector<SampledToken>& tokens) {
  std::vector<TokenId> ids;
  for (const SampledToken& token : tokens) ids.push_back(token.id);
  return ids;
}

// A step loop over some engine, and what it said. Cancels a sequence once it has as many tokens as
// `cancel_at` says.
class Session {
 public:
  template <typename Engine>
  Session(Engine engine, const BatchOptions& options, std::map<uint64_t, size_t> cancel_at = {})
      : cancel_at_(std::move(cancel_at)),
        loop_(std::move(engine), options, metrics_, Clock::Real(),
              [this](std::vector<TokenUpdate> updates) { Take(std::move(updates)); }) {}

  void Push(const std::vector<Submit>& submits) {
    std::vector<StepCommand> commands;
    for (const Submit& submit : submits) commands.emplace_back(submit);
    loop_.Push(std::move(commands));
  }
  const Answers& WaitForEnds(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(120), [&] { return ended_ >= count; }))
        << ended_ << " of " << count << " ended";
    return answers_;
  }
  void WaitForTokens(uint64_t number, size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(120),
                                  [&] { return answers_[number].tokens.size() >= count; }));
  }
  // Waits for what is still outstanding.
  bool AllBlocksComeBack() const {
    const int64_t deadline_us = Clock::Real().NowUs() + 60'000'000;
    while (loop_.progress().kv_blocks_used > 0 && Clock::Real().NowUs() < deadline_us)
      std::this_thread::yield();
    return loop_.progress().kv_blocks_used == 0;
  }
  StepLoop& loop() { return loop_; }

 private:
  void Take(std::vector<TokenUpdate> updates) {
    std::vector<StepCommand> cancels;
    {
      const std::lock_guard lock(mutex_);
      for (TokenUpdate& update : updates) {
        const uint64_t number = update.sequence.request.low;
        Answer& answer = answers_[number];
        EXPECT_EQ(answer.last.finish, FinishReason::kNone) << "an update after the end";
        answer.tokens.insert(answer.tokens.end(), update.tokens.begin(), update.tokens.end());
        answer.prompt_logprobs.insert(answer.prompt_logprobs.end(), update.prompt_logprobs.begin(),
                                      update.prompt_logprobs.end());
        if (update.finish != FinishReason::kNone) ++ended_;
        const auto cancel = cancel_at_.find(number);
        if (cancel != cancel_at_.end() && answer.tokens.size() == cancel->second)
          cancels.emplace_back(Cancel{update.sequence, update.attempt});
        answer.last = std::move(update);
      }
    }
    changed_.notify_all();
    if (!cancels.empty()) loop_.Push(std::move(cancels));
  }

  MetricRegistry registry_;
  NodeMetrics metrics_{registry_, "n0", "r0", "toy"};
  const std::map<uint64_t, size_t> cancel_at_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Answers answers_;
  size_t ended_ = 0;
  StepLoop loop_;
};

// Requests of every kind that the sampler knows.
std::vector<Submit> RandomSubmits(std::mt19937& random, uint64_t count) {
  std::vector<Submit> submits;
  for (uint64_t number = 1; number <= count; ++number) {
    Submit submit;
    submit.sequence = {{0, number}, 0};
    submit.request_class = static_cast<RequestClass>(random() % 3);
    const auto family = static_cast<uint32_t>(random() % 3);
    const auto shared = static_cast<uint32_t>(random() % 40);
    const auto own = static_cast<uint32_t>(1 + random() % 20);
    for (uint32_t i = 0; i < shared + own; ++i)
      submit.prompt.push_back(
          static_cast<TokenId>((i < shared ? family * 31 + i : random() % 64) % 64));
    submit.stop.max_tokens = static_cast<uint32_t>(1 + random() % 24);
    submit.stop.min_tokens = static_cast<uint32_t>(random() % 8);
    submit.stop.end_tokens = {13, 14};
    submit.sampling.seed = number;
    submit.sampling.temperature = random() % 3 == 0 ? 0.0F : 0.8F;
    if (random() % 2 == 0) submit.sampling.logprobs = static_cast<int>(random() % 3);
    if (random() % 5 == 0) submit.sampling.prompt_logprobs = 1;
    if (random() % 3 == 0) submit.sampling.repetition_penalty = 1.3F;
    if (random() % 3 == 0) submit.sampling.frequency_penalty = 0.6F;
    if (random() % 3 == 0) submit.sampling.presence_penalty = 0.4F;
    submits.push_back(std::move(submit));
  }
  return submits;
}

void ExpectSame(const Answers& undisturbed, const Answers& answers,
                const std::map<uint64_t, size_t>& cancel_at) {
  for (const auto& [number, whole] : undisturbed) {
    SCOPED_TRACE(number);
    const Answer& answer = answers.at(number);
    if (answer.last.finish == FinishReason::kCancelled) {
      ASSERT_TRUE(cancel_at.contains(number));
      ASSERT_LE(answer.tokens.size(), whole.tokens.size());
      EXPECT_TRUE(SameTokens(
          answer.tokens, {whole.tokens.begin(), whole.tokens.begin() + static_cast<std::ptrdiff_t>(
                                                                           answer.tokens.size())}));
      continue;
    }
    EXPECT_EQ(answer.last.finish, whole.last.finish) << answer.last.error;
    EXPECT_TRUE(SameTokens(answer.tokens, whole.tokens))
        << ::testing::PrintToString(Ids(answer.tokens)) << " and "
        << ::testing::PrintToString(Ids(whole.tokens));
    EXPECT_TRUE(SameTokens(answer.prompt_logprobs, whole.prompt_logprobs));
  }
}

struct Totals {
  uint64_t losses = 0;
  uint64_t cancelled = 0;
  uint64_t lost_steps = 0;
};

void CompareWithOneRank(uint32_t seed, uint32_t loss_every, Totals* totals) {
  std::mt19937 random(seed);
  const uint64_t count = 3 + random() % 6;
  const std::vector<Submit> submits = RandomSubmits(random, count);
  std::map<uint64_t, size_t> cancel_at;
  for (uint64_t number = 1; number <= count; ++number) {
    if (random() % 5 == 0) cancel_at[number] = 1 + random() % 10;
  }
  Session one(std::make_shared<ToyModel>(), {});
  one.Push(submits);
  one.loop().Start();
  const Answers& undisturbed = one.WaitForEnds(count);

  BatchOptions options;
  options.sequences_max = static_cast<uint32_t>(2 + random() % 8);
  options.prefill_chunk_max = static_cast<uint32_t>(1 + random() % 40);
  options.prefix_cache = random() % 4 != 0;
  PipelineOptions pipeline;
  pipeline.stages = static_cast<uint32_t>(1 + random() % 4);
  pipeline.block_count = static_cast<uint32_t>(16 + random() % 48);
  pipeline.seed = seed;
  pipeline.loss_every = loss_every;
  auto owned = std::make_unique<PipelineEngine>(pipeline);
  PipelineEngine& engine = *owned;
  Session session(std::unique_ptr<StepEngine>(std::move(owned)), options, cancel_at);
  session.loop().Start();
  session.Push(submits);
  const Answers& answers = session.WaitForEnds(count);
  EXPECT_TRUE(session.AllBlocksComeBack());
  session.loop().Stop();
  ExpectSame(undisturbed, answers, cancel_at);
  totals->losses += engine.losses();
  totals->lost_steps += session.loop().progress().losses;
  for (const auto& [number, answer] : answers) {
    if (answer.last.finish == FinishReason::kCancelled) ++totals->cancelled;
  }
}

TEST(StepEngineTest, APipelineGivesTheTokensOfOneRank) {
  Totals totals;
  for (uint32_t seed = 1; seed <= testing::SeedCount(100); ++seed) {
    SCOPED_TRACE(seed);
    CompareWithOneRank(seed, 0, &totals);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(totals.cancelled, 5U);
}

TEST(StepEngineTest, StreamsGoOnWithTheSameTokensWhateverIsLost) {
  Totals totals;
  for (uint32_t seed = 1; seed <= testing::SeedCount(1000); ++seed) {
    SCOPED_TRACE(seed);
    CompareWithOneRank(seed, 4 + seed % 40, &totals);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(totals.losses, 1000U);
  EXPECT_GT(totals.lost_steps, 1000U);
  EXPECT_GT(totals.cancelled, 50U);
}

Submit Simple(uint64_t number, uint32_t max_tokens, int64_t timeout_us = 0) {
  Submit submit;
  submit.sequence = {{0, number}, 0};
  submit.prompt = {1, 2, static_cast<TokenId>(number % 64)};
  submit.stop.max_tokens = max_tokens;
  submit.timeout_us = timeout_us;
  return submit;
}

TEST(StepEngineTest, EnoughStreamsKeepAllPlansOfAPipelineBusy) {
  auto owned = std::make_unique<PipelineEngine>(PipelineOptions{.stages = 3});
  PipelineEngine& engine = *owned;
  Session session(std::unique_ptr<StepEngine>(std::move(owned)), {});
  std::vector<Submit> submits;
  for (uint64_t number = 1; number <= 8; ++number) submits.push_back(Simple(number, 40));
  session.Push(submits);
  session.loop().Start();
  (void)session.WaitForEnds(8);
  EXPECT_EQ(engine.submitted_max(), engine.plans_max());
}

TEST(StepEngineTest, WithoutRanksSequencesWaitAndEndWhenTheirTimeIsOver) {
  auto owned = std::make_unique<PipelineEngine>(PipelineOptions{.stages = 2});
  PipelineEngine& engine = *owned;
  Session session(std::unique_ptr<StepEngine>(std::move(owned)), {});
  session.loop().Start();
  session.Push({Simple(1, 200)});
  session.WaitForTokens(1, 3);
  engine.SetAvailable(false);
  session.Push({Simple(2, 5), Simple(3, 5, 20'000)});
  EXPECT_EQ(session.WaitForEnds(1).at(3).last.finish, FinishReason::kDeadline);
  EXPECT_FALSE(session.loop().progress().available);
  // Parked, and so not taken for hung.
  const int64_t deadline_us = Clock::Real().NowUs() + 60'000'000;
  while (session.loop().progress().busy_since_us != 0 && Clock::Real().NowUs() < deadline_us)
    std::this_thread::yield();
  EXPECT_EQ(session.loop().progress().busy_since_us, 0);
  EXPECT_EQ(session.loop().progress().kv_blocks_used, 0U);
  EXPECT_EQ(session.loop().progress().waiting, 2U);
  engine.SetAvailable(true);
  const Answers& answers = session.WaitForEnds(3);
  EXPECT_EQ(answers.at(1).tokens.size(), 200U);
  EXPECT_EQ(answers.at(2).tokens.size(), 5U);
  EXPECT_TRUE(session.AllBlocksComeBack());
}

}  // namespace
}  // namespace muselet
