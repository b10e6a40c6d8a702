// Sequences that may have killed the process that computed them.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

class SuspectTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  static BatchModel Model(uint32_t groups) {
    BatchModel model;
    model.vocab_size = 100;
    model.context_tokens = 256;
    model.kv.groups = {{64, 0}};
    model.sequence_groups = groups;
    return model;
  }
  void Admit(uint64_t number, RequestClass request_class = RequestClass::kInteractive) {
    Submit submit;
    submit.sequence = {{0, number}, 0};
    submit.request_class = request_class;
    submit.prompt.assign(20, static_cast<TokenId>(number));
    submit.stop.max_tokens = 12;
    ASSERT_TRUE(batcher_.Admit(std::move(submit), 1).ok());
  }
  // Plans all that can be planned, then commits the oldest plan, or loses them if one of them names
  // `deadly`: true then.
  bool Step(uint64_t deadly) {
    bool dies = false;
    for (size_t room = GetParam() + 1; batcher_.outstanding_count() < room;) {
      const StepPlan plan = batcher_.Plan(1);
      if (plan.empty()) break;
      StepResult& result = results_[plan.number];
      std::set<uint64_t> named;
      for (const SequenceSlice& slice : plan.slices) {
        named.insert(batcher_.InSlot(slice.slot).record.sequence.request.low);
        result.slices.emplace_back();
        result.slices.back().sampled = slice.samples;
      }
      dies = dies || named.contains(deadly);
      sequences_in_plan_ = named;
    }
    if (dies) {
      batcher_.Reset();
      results_.clear();
    } else if (!results_.empty()) {
      const auto oldest = results_.begin();
      batcher_.Commit(oldest->first, oldest->second, 0, 1);
      results_.erase(oldest);
    }
    for (const TokenUpdate& update : batcher_.TakeUpdates()) {
      if (update.finish != FinishReason::kNone) ended_[update.sequence.request.low] = update;
    }
    return dies;
  }
  void TakeEnds() {
    for (const TokenUpdate& update : batcher_.TakeUpdates()) {
      if (update.finish != FinishReason::kNone) ended_[update.sequence.request.low] = update;
    }
  }

  Batcher batcher_{{}, Model(GetParam())};
  std::map<uint64_t, StepResult> results_;
  std::set<uint64_t> sequences_in_plan_;
  std::map<uint64_t, TokenUpdate> ended_;
};

TEST_P(SuspectTest, ThePoisonousOneEndsAndNobodyElse) {
  for (uint64_t number = 1; number <= 4; ++number) Admit(number);
  Admit(5, RequestClass::kBatch);
  int deaths = 0;
  for (int i = 0; i < 500 && !batcher_.idle(); ++i) {
    if (!Step(/*deadly=*/3)) continue;
    ++deaths;
    batcher_.Blame();
    TakeEnds();
  }
  EXPECT_TRUE(batcher_.idle());
  EXPECT_EQ(deaths, 2);
  ASSERT_EQ(ended_.size(), 5U);
  EXPECT_EQ(ended_[3].finish, FinishReason::kError);
  EXPECT_EQ(ended_[3].error_code, StatusCode::kInternal);
  EXPECT_NE(ended_[3].error.find(SequenceId{{0, 3}, 0}.request.ToString()), std::string::npos);
  for (const uint64_t number : {1, 2, 4, 5}) {
    EXPECT_EQ(ended_[number].finish, FinishReason::kLength) << number;
  }
}

TEST_P(SuspectTest, SuspectsAreComputedAloneUntilTheyHaveShownThatTheyAreHarmless) {
  for (uint64_t number = 1; number <= 3; ++number) Admit(number);
  for (int i = 0; i < 4; ++i) Step(0);
  Admit(9);
  while (!Step(9)) {
  }
  const size_t suspects = batcher_.Blame();
  EXPECT_GE(suspects, 1U);
  size_t alone = 0;
  for (int i = 0; i < 500 && !batcher_.idle(); ++i) {
    Step(0);
    if (sequences_in_plan_.size() == 1) ++alone;
  }
  EXPECT_GE(alone, suspects);
  EXPECT_TRUE(batcher_.idle());
  for (const uint64_t number : {1, 2, 3, 9}) {
    EXPECT_EQ(ended_[number].finish, FinishReason::kLength) << number;
  }
}

TEST_P(SuspectTest, WithoutBlameNobodyIsASuspect) {
  for (uint64_t number = 1; number <= 3; ++number) Admit(number);
  while (!Step(2)) {
  }
  while (!Step(2)) {
  }
  for (int i = 0; i < 500 && !batcher_.idle(); ++i) Step(0);
  for (const uint64_t number : {1, 2, 3}) {
    EXPECT_EQ(ended_[number].finish, FinishReason::kLength) << number;
  }
}

TEST_P(SuspectTest, ASuspectThatIsCancelledHoldsNobodyUp) {
  for (uint64_t number = 1; number <= 3; ++number) Admit(number);
  while (!Step(2)) {
  }
  batcher_.Blame();
  for (const uint64_t number : {1, 2}) batcher_.Cancel({{0, number}, 0}, 0);
  for (int i = 0; i < 500 && !batcher_.idle(); ++i) Step(0);
  EXPECT_EQ(ended_[3].finish, FinishReason::kLength);
}

INSTANTIATE_TEST_SUITE_P(Groups, SuspectTest, ::testing::Values(1, 3));

}  // namespace
}  // namespace muselet
