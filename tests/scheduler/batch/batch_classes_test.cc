// Classes and shares inside the batch, on a machine of which a row costs the same whatever it is.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

class BatchClassesTest : public ::testing::Test {
 protected:
  static constexpr int64_t kRowUs = 1'000;

  static BatchOptions Options() {
    BatchOptions options;
    options.sequences_max = 8;
    options.prefix_cache = false;
    return options;
  }
  static BatchModel Model() {
    BatchModel model;
    model.vocab_size = 100;
    model.context_tokens = 100'000;
    model.kv.groups = {{10'000, 0}};
    return model;
  }
  void Admit(uint64_t number, RequestClass request_class, uint32_t prompt, uint32_t max_tokens,
             const std::string& surface = "a", double share = 1) {
    Submit submit;
    submit.sequence = {{0, number}, 0};
    submit.request_class = request_class;
    submit.surface = surface;
    submit.share = share;
    submit.prompt.assign(prompt, 1);
    submit.stop.max_tokens = max_tokens;
    ASSERT_TRUE(batcher_->Admit(std::move(submit), now_us_).ok());
  }
  // Computes the next step; rows of each class in it.
  std::map<RequestClass, uint32_t> Step() {
    std::map<RequestClass, uint32_t> rows;
    const StepPlan plan = batcher_->Plan(now_us_);
    if (plan.empty()) return rows;
    StepResult result;
    for (const SequenceSlice& slice : plan.slices) {
      const Submit& record = batcher_->InSlot(slice.slot).record;
      rows[record.request_class] += slice.row_count;
      if (slice.samples) ++tokens_[record.surface];
      result.slices.emplace_back();
      result.slices.back().sampled = slice.samples;
    }
    const int64_t step_us = kRowUs * plan.row_count();
    now_us_ += step_us;
    batcher_->Commit(plan.number, result, step_us, now_us_);
    for (const TokenUpdate& update : batcher_->TakeUpdates()) {
      if (update.finish != FinishReason::kNone) ++ended_;
    }
    return rows;
  }

  int64_t now_us_ = 1;
  std::unique_ptr<Batcher> batcher_ = std::make_unique<Batcher>(Options(), Model());
  std::map<std::string, uint64_t> tokens_;  // sampled, by surface
  uint64_t ended_ = 0;
};

TEST_F(BatchClassesTest, BatchWorkKeepsASmallPartBesideHigherClasses) {
  for (uint64_t i = 0; i < 4; ++i) Admit(10 + i, RequestClass::kBatch, 50, 50'000);
  for (int i = 0; i < 50; ++i) Step();
  Admit(1, RequestClass::kInteractive, 20, 20'000);
  Step();
  uint64_t interactive = 0;
  uint64_t batch = 0;
  for (int i = 0; i < 5'000; ++i) {
    auto rows = Step();
    interactive += rows[RequestClass::kInteractive];
    batch += rows[RequestClass::kBatch];
    EXPECT_LE(rows[RequestClass::kBatch], 1U);
  }
  EXPECT_EQ(interactive, 5'000U);
  EXPECT_NEAR(static_cast<double>(batch) / static_cast<double>(interactive + batch), 0.02, 0.004);
}

TEST_F(BatchClassesTest, BatchWorkGivesWayWithTheNextPlanAndComesBack) {
  for (uint64_t i = 0; i < 4; ++i) Admit(10 + i, RequestClass::kBatch, 50, 50'000);
  for (int i = 0; i < 50; ++i) Step();
  EXPECT_EQ(Step()[RequestClass::kBatch], 4U);
  Admit(1, RequestClass::kRealtime, 20, 3);
  uint32_t batch = 0;
  for (int i = 0; i < 3; ++i) {
    auto rows = Step();
    EXPECT_GT(rows[RequestClass::kRealtime], 0U);
    batch += rows[RequestClass::kBatch];
  }
  EXPECT_LE(batch, 1U);
  EXPECT_EQ(ended_, 1U);
  EXPECT_EQ(Step()[RequestClass::kBatch], 4U);
}

TEST_F(BatchClassesTest, PromptsOfBatchWorkGoOnBesideHigherClassesToo) {
  Admit(1, RequestClass::kInteractive, 20, 50'000);
  for (int i = 0; i < 50; ++i) Step();
  Admit(10, RequestClass::kBatch, 100, 1);
  int steps = 0;
  for (; ended_ == 0 && steps < 20'000; ++steps) {
    EXPECT_EQ(Step()[RequestClass::kInteractive], 1U);
  }
  EXPECT_EQ(ended_, 1U);
  EXPECT_NEAR(steps, 100 / 0.02, 1'000);
}

TEST_F(BatchClassesTest, BatchWorkIsNotProtectedFromHigherClasses) {
  BatchOptions options = Options();
  options.resume_tokens_min = 64;
  BatchModel model = Model();
  model.kv.groups = {{12, 0}};
  batcher_ = std::make_unique<Batcher>(options, model);
  // Paused by the first interactive one, it runs again with the second in its way.
  Admit(10, RequestClass::kBatch, 60, 100);
  for (int i = 0; i < 5; ++i) Step();
  Admit(1, RequestClass::kInteractive, 150, 2);
  while (ended_ == 0) Step();
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_EQ(batcher_->counters().pauses, 1U);
  Admit(2, RequestClass::kInteractive, 150, 2);
  for (int i = 0; ended_ == 1 && i < 100; ++i) Step();
  EXPECT_EQ(ended_, 2U);
  EXPECT_EQ(batcher_->counters().pauses, 2U);
}

TEST_F(BatchClassesTest, SurfacesOfAClassGetTokensByTheirShares) {
  uint64_t next = 1;
  // Each has more waiting than can run.
  for (int i = 0; i < 16; ++i) {
    Admit(next++, RequestClass::kInteractive, 30, 40, "three", 3);
    Admit(next++, RequestClass::kInteractive, 30, 40, "one", 1);
  }
  uint64_t seen = 0;
  while (ended_ < 800) {
    Step();
    for (; seen < ended_; ++seen) {
      Admit(next++, RequestClass::kInteractive, 30, 40, "three", 3);
      Admit(next++, RequestClass::kInteractive, 30, 40, "one", 1);
    }
  }
  const double ratio = static_cast<double>(tokens_["three"]) / static_cast<double>(tokens_["one"]);
  EXPECT_NEAR(ratio, 3.0, 0.15);
}

TEST_F(BatchClassesTest, AShareThatIsNoneIsRefused) {
  for (const double share : {0.0, -1.0, 1e9, std::numeric_limits<double>::quiet_NaN()}) {
    Submit submit;
    submit.prompt = {1};
    submit.share = share;
    EXPECT_EQ(batcher_->Admit(submit, 1).code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace muselet
