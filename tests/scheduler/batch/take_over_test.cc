// A newer attempt of a sequence that is being computed.
#include <gtest/gtest.h>

#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

class TakeOverTest : public ::testing::Test {
 protected:
  static BatchModel Model() {
    BatchModel model;
    model.vocab_size = 100;
    model.context_tokens = 256;
    model.kv.groups = {{16, 0}};
    return model;
  }
  static Submit MakeSubmit(uint32_t attempt) {
    Submit submit;
    submit.sequence = {{0, 1}, 0};
    submit.attempt = attempt;
    submit.prompt = {1, 2, 3};
    submit.stop.max_tokens = 40;
    return submit;
  }
  // Tokens are 10, 11, 12, ...
  void Step() {
    const StepPlan plan = batcher_.Plan(1);
    StepResult result;
    for (const SequenceSlice& slice : plan.slices) {
      SliceResult& it = result.slices.emplace_back();
      it.sampled = slice.samples;
      it.token = {next_, -0.5F * static_cast<float>(next_), {}};
      if (slice.samples) ++next_;
    }
    batcher_.Commit(plan.number, result, 0, 1);
  }
  std::vector<TokenUpdate> Run(int steps) {
    for (int i = 0; i < steps; ++i) Step();
    return batcher_.TakeUpdates();
  }

  Batcher batcher_{{}, Model()};
  TokenId next_ = 10;
};

TEST_F(TakeOverTest, GoesOnAsItStandsAndSaysAgainWhatTheNewAttemptDoesNotName) {
  ASSERT_TRUE(batcher_.Admit(MakeSubmit(0), 1).ok());
  Run(5);
  Submit submit = MakeSubmit(1);
  submit.generated = {10, 11};
  ASSERT_TRUE(batcher_.Admit(submit, 1).ok());
  const auto updates = batcher_.TakeUpdates();
  ASSERT_EQ(updates.size(), 1U);
  EXPECT_EQ(updates[0].attempt, 1U);
  EXPECT_EQ(updates[0].first_index, 2U);
  ASSERT_EQ(updates[0].tokens.size(), 3U);
  EXPECT_EQ(updates[0].tokens[0].id, 12);
  EXPECT_EQ(updates[0].finish, FinishReason::kNone);
  const auto next = Run(1);
  ASSERT_EQ(next.size(), 1U);
  EXPECT_EQ(next[0].attempt, 1U);
  EXPECT_EQ(next[0].first_index, 5U);
  EXPECT_EQ(batcher_.counters().prefill_rows, 3U);  // nothing was computed again
}

TEST_F(TakeOverTest, WorksWhilePlansAreOutstanding) {
  ASSERT_TRUE(batcher_.Admit(MakeSubmit(0), 1).ok());
  Run(2);
  const StepPlan first = batcher_.Plan(1);
  const StepPlan second = batcher_.Plan(1);
  ASSERT_TRUE(batcher_.Admit(MakeSubmit(7), 1).ok());
  StepResult result;
  result.slices = {{true, {12, 0, {}}, OkStatus(), {}}};
  batcher_.Commit(first.number, result, 0, 1);
  result.slices[0].token.id = 13;
  batcher_.Commit(second.number, result, 0, 1);
  std::vector<TokenId> tokens;
  for (const TokenUpdate& update : batcher_.TakeUpdates()) {
    EXPECT_EQ(update.attempt, 7U);
    EXPECT_EQ(update.first_index, tokens.size());
    for (const SampledToken& token : update.tokens) tokens.push_back(token.id);
  }
  EXPECT_EQ(tokens, (std::vector<TokenId>{10, 11, 12, 13}));
}

TEST_F(TakeOverTest, LogprobsAreSaidAgain) {
  Submit submit = MakeSubmit(0);
  submit.sampling.logprobs = 0;
  ASSERT_TRUE(batcher_.Admit(submit, 1).ok());
  Run(4);
  submit.attempt = 1;
  submit.generated = {10};
  ASSERT_TRUE(batcher_.Admit(submit, 1).ok());
  const auto updates = batcher_.TakeUpdates();
  ASSERT_EQ(updates.size(), 1U);
  ASSERT_EQ(updates[0].tokens.size(), 3U);
  EXPECT_EQ(updates[0].tokens[2].logprob, -6.5F);
}

TEST_F(TakeOverTest, TakesTheNewTimeLimit) {
  Submit submit = MakeSubmit(0);
  submit.timeout_us = 100;
  ASSERT_TRUE(batcher_.Admit(submit, 1).ok());
  ASSERT_TRUE(batcher_.Admit(MakeSubmit(1), 1).ok());
  batcher_.ExpireDeadlines(1'000'000);
  EXPECT_TRUE(batcher_.TakeUpdates().empty());
}

TEST_F(TakeOverTest, AnotherRecordStartsAnew) {
  const auto differ = [](auto change) {
    Submit submit = MakeSubmit(1);
    change(submit);
    return submit;
  };
  const std::vector<Submit> others = {
      differ([](Submit& s) { s.prompt[1] = 9; }),
      differ([](Submit& s) { s.prompt.push_back(9); }),
      differ([](Submit& s) {
        s.generated = {10, 99};
      }),
      differ([](Submit& s) { s.generated.assign(9, 10); }),  // more than is known here
      differ([](Submit& s) { s.sampling.seed = 3; }),
      differ([](Submit& s) { s.sampling.logprobs = 2; }),
      differ([](Submit& s) { s.stop.max_tokens = 41; }),
      differ([](Submit& s) { s.cache_salt = 1; }),
      differ([](Submit& s) { s.surface = "other"; }),
  };
  uint64_t number = 1;
  for (Submit other : others) {
    Submit submit = MakeSubmit(0);
    other.sequence.request.low = submit.sequence.request.low = ++number;
    next_ = 10;
    ASSERT_TRUE(batcher_.Admit(submit, 1).ok());
    Run(5);
    ASSERT_TRUE(batcher_.Admit(other, 1).ok());
    const auto updates = batcher_.TakeUpdates();
    ASSERT_EQ(updates.size(), 1U) << number;
    EXPECT_EQ(updates[0].finish, FinishReason::kCancelled);
    EXPECT_EQ(updates[0].attempt, 0U);
    const auto next = Run(1);
    ASSERT_EQ(next.size(), 1U);
    EXPECT_EQ(next[0].first_index, other.generated.size());
    batcher_.Cancel(other.sequence, 1);
    batcher_.TakeUpdates();
  }
}

}  // namespace
}  // namespace muselet
