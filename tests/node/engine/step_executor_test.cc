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

// Both ends of an exchange in one process: what the sampling rank gave is kept for the other.
class Pipe final : public TokenExchange {
 public:
  Pipe(bool gives, std::vector<std::vector<TokenId>>* sent) : gives_(gives), sent_(sent) {}
  Status Exchange(std::span<TokenId> drawn) override {
    if (broken) return Unavailable("the other rank is gone");
    if (gives_) {
      sent_->emplace_back(drawn.begin(), drawn.end());
    } else {
      const std::vector<TokenId>& given = sent_->at(next_++);
      EXPECT_EQ(given.size(), drawn.size());
      std::copy(given.begin(), given.end(), drawn.begin());
    }
    return OkStatus();
  }
  bool broken = false;

 private:
  const bool gives_;
  std::vector<std::vector<TokenId>>* const sent_;
  size_t next_ = 0;
};

// Has no logits to give, like a rank that does not sample; remembers what it was to compute.
class SilentModel final : public Model {
 public:
  explicit SilentModel(const ModelInfo& info) : info_(info) {}
  const ModelInfo& info() const override { return info_; }
  Result<std::span<const float>> Forward(const StepPlan& plan) override {
    tokens.insert(tokens.end(), plan.tokens.begin(), plan.tokens.end());
    return std::span<const float>();
  }
  std::vector<TokenId> tokens;

 private:
  ModelInfo info_;
};

TEST_F(StepExecutorTest, ARankThatDoesNotSampleLearnsWhatTheOtherDrew) {
  std::vector<std::vector<TokenId>> sent;
  Pipe gives(true, &sent);
  Pipe takes(false, &sent);
  const auto model = std::make_shared<NextIdModel>();
  const auto silent = std::make_shared<SilentModel>(model->info());
  StepExecutor sampling(model, 8, {.samples = true, .exchange = &gives});
  StepExecutor other(silent, 8, {.samples = false, .exchange = &takes});
  const auto run = [&](const StepPlan& plan, bool start) {
    StepWork work;
    work.plan = plan;
    for (SequenceSlot slot = 0; start && slot < 2; ++slot) {
      work.starts.emplace_back().slot = slot;
      work.starts.back().sampling.temperature = 0;
    }
    StepWork copy;
    copy.plan = work.plan;
    copy.starts = work.starts;
    sampling.Execute(&work);
    other.Execute(&copy);
    EXPECT_TRUE(work.fault.ok() && copy.fault.ok());
    EXPECT_TRUE(copy.result.slices.empty());
    return work.result;
  };
  StepPlan plan;  // a prompt of which nothing is sampled yet, beside one that is complete
  plan.tokens = {7, 20, 21};
  plan.slices = {{0, 0, 0, 1, 0, false, {0}, {0}}, {1, 0, 1, 2, 1, true, {0}, {0}}};
  EXPECT_EQ(run(plan, true).slices.at(1).token.id, 22);
  plan.tokens = {30, kTokenFromEarlierPlan};
  plan.slices = {{0, 1, 0, 1, 1, true, {0}, {0}}, {1, 2, 1, 1, 1, true, {0}, {0}}};
  EXPECT_EQ(run(plan, false).slices.at(1).token.id, 23);
  plan.tokens = {kTokenFromEarlierPlan, kTokenFromEarlierPlan};
  plan.slices = {{1, 3, 0, 1, 1, true, {0}, {0}}, {0, 2, 1, 1, 1, true, {0}, {0}}};
  const StepResult last = run(plan, false);
  EXPECT_EQ(last.slices.at(0).token.id, 24);
  EXPECT_EQ(last.slices.at(1).token.id, 32);
  EXPECT_EQ(silent->tokens, (std::vector<TokenId>{7, 20, 21, 30, 22, 23, 31}));
}

TEST_F(StepExecutorTest, AFaultOfTheExchangeFailsTheStep) {
  std::vector<std::vector<TokenId>> sent;
  Pipe gives(true, &sent);
  gives.broken = true;
  StepExecutor sampling(std::make_shared<NextIdModel>(), 8, {.samples = true, .exchange = &gives});
  work_.plan = OneRow(7, 0);
  work_.starts.emplace_back().token_limit = 20;
  sampling.Execute(&work_);
  EXPECT_EQ(work_.fault.code(), StatusCode::kUnavailable);
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
