#include "node/engine/step_executor.h"

#include <gtest/gtest.h>

#include "scheduler/batch/batcher.h"
#include "tests/node/model/allocations.h"

namespace muselet {
namespace {

constexpr uint32_t kVocab = 64;

// The best id of a row is the token of that row plus one.
class NextIdModel final : public Model {
 public:
  NextIdModel() {
    info_.vocab_size = kVocab;
    info_.context_tokens = 4096;
    info_.kv_groups = {{1024, 0}};
    logits_.reserve(size_t{64} * kVocab);
  }
  const ModelInfo& info() const override { return info_; }
  Result<std::span<const float>> Forward(const StepPlan& plan) override {
    logits_.clear();
    for (const SequenceSlice& slice : plan.slices) {
      for (uint32_t i = slice.row_count - slice.logits_rows; i < slice.row_count; ++i) {
        const TokenId token = plan.tokens[slice.row_begin + i];
        if (token < 0) return Internal("a row has no token");
        logits_.resize(logits_.size() + kVocab, 0.0F);
        logits_[logits_.size() - kVocab + (token + 1) % kVocab] = 5.0F;
      }
    }
    return std::span<const float>(logits_);
  }

 private:
  ModelInfo info_;
  std::vector<float> logits_;
};

StepPlan OneRow(TokenId token, uint32_t position) {
  StepPlan plan;
  plan.tokens = {token};
  plan.slices = {{0, position, 0, 1, 1, true, {0}, {0}}};
  return plan;
}

class StepExecutorTest : public ::testing::Test {
 protected:
  StepExecutor executor_{std::make_shared<NextIdModel>(), 8};
  StepWork work_;
};

TEST_F(StepExecutorTest, AnOpenTokenIsTheOneThatTheSlotDrewLast) {
  work_.plan = OneRow(7, 0);
  work_.starts.emplace_back().token_limit = 20;
  executor_.Execute(&work_);
  ASSERT_TRUE(work_.fault.ok());
  EXPECT_EQ(work_.result.slices.at(0).token.id, 8);
  work_.plan = OneRow(kTokenFromEarlierPlan, 1);
  executor_.Execute(&work_);
  EXPECT_EQ(work_.result.slices.at(0).token.id, 9);
}

TEST_F(StepExecutorTest, PenaltiesCountTheTokensThatWereDrawnSinceTheStart) {
  SlotStart start;
  start.sampling.presence_penalty = 2;
  start.sampling.logit_bias = {{9, 4.5F}};
  start.prompt_count = 1;
  start.token_limit = 20;
  start.tokens = {7};
  work_.starts = {start};
  std::vector<TokenId> drawn;
  TokenId token = 7;
  for (uint32_t position = 0; position < 5; ++position) {
    work_.plan = OneRow(position == 0 ? token : kTokenFromEarlierPlan, position);
    executor_.Execute(&work_);
    drawn.push_back(work_.result.slices.at(0).token.id);
  }
  // 9 is liked nearly as much as the next id, until it was said.
  EXPECT_EQ(drawn, (std::vector<TokenId>{8, 9, 10, 11, 12}));
}

TEST_F(StepExecutorTest, PlanningAndDrawingTakeNoMemoryForATokenOnceTheyHaveGrown) {
  constexpr uint32_t kSequences = 8;
  BatchOptions options;
  Batcher batcher(options, {kVocab, 4096, {16, {{1024, 0}}}});
  for (uint32_t number = 1; number <= kSequences; ++number) {
    Submit submit;
    submit.sequence = {{0, number}, 0};
    submit.prompt = {static_cast<TokenId>(number)};
    submit.stop.max_tokens = 2000;
    ASSERT_TRUE(batcher.Admit(std::move(submit), 0).ok());
  }
  for (SequenceSlot slot = 0; slot < kSequences; ++slot) work_.starts.emplace_back().slot = slot;
  uint64_t allocations = 0;
  constexpr int kWarm = 300;
  constexpr int kSteps = 200;
  for (int step = 0; step < kWarm + kSteps; ++step) {
    const uint64_t before = testing::AllocationsSoFar().count;
    work_.plan = batcher.Plan(step);
    executor_.Execute(&work_);
    if (step >= kWarm) allocations += testing::AllocationsSoFar().count - before;
    batcher.Commit(work_.plan.number, work_.result, 1000, step);
    (void)batcher.TakeUpdates();
    batcher.Recycle(std::move(work_.plan));
  }
  // Block tables and the vectors of a plan double now and then.
  EXPECT_LE(allocations, kSequences * 4U) << "for " << kSequences * kSteps << " tokens";
}

}  // namespace
}  // namespace muselet
