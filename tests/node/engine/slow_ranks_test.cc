// A step loop over ranks that are far slower than anybody would guess, and that give up each step
// which lasts longer than they wait for one. Time is played.
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <map>

#include "node/engine/step_loop.h"
#include "node/rank/epoch_timing.h"
#include "tests/node/engine/toy_model.h"

namespace muselet {
namespace {

using testing::ToyModel;

// Computes at once, and says that it took row_us a row. Gives ids by position.
class SlowRanks final : public StepEngine {
 public:
  SlowRanks(int64_t row_us, uint32_t* losses) : row_us_(row_us), losses_(losses) {}

  const ModelInfo& info() const override { return model_.info(); }
  uint32_t plans_max() const override { return 1; }
  uint32_t sequence_groups() const override { return 1; }
  void Start(Handlers handlers) override { handlers_ = std::move(handlers); }
  void Stop() override {}
  bool available() const override { return true; }
  uint64_t state_epoch() const override { return state_epoch_; }
  bool notices_hangs() const override { return true; }

  void Submit(WorkPointer work) override {
    const int64_t limit_us = StepTimeoutUs(timing_, work->plan.predicted_us);
    work->step_us = row_us_ * work->plan.row_count();
    work->result.slices.clear();
    if (work->step_us >= limit_us && *losses_ < kLossesMax) {
      ++*losses_;
      ++state_epoch_;
      work->step_us = limit_us;
      work->state_lost = true;
      work->fault = Unavailable("a rank is not done in time");
    } else {
      for (const SequenceSlice& slice : work->plan.slices) {
        SliceResult& result = work->result.slices.emplace_back();
        result.sampled = slice.samples;
        result.token.id = static_cast<TokenId>((slice.first_position + slice.row_count) % 64);
      }
    }
    handlers_.done(std::move(work));
  }

  static constexpr uint32_t kLossesMax = 1000;  // so that every run comes to an end

 private:
  const ToyModel model_;
  const EpochTiming timing_;
  const int64_t row_us_;
  uint32_t* const losses_;
  Handlers handlers_;
  uint64_t state_epoch_ = 1;  // plan thread
};

class Ends {
 public:
  void Take(const std::vector<TokenUpdate>& updates) {
    const std::lock_guard lock(mutex_);
    for (const TokenUpdate& update : updates) {
      tokens_ += update.tokens.size();
      if (update.finish == FinishReason::kLength) ++ended_;
    }
    changed_.notify_all();
  }
  size_t TokensOf(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return ended_ >= count; }));
    return tokens_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t ended_ = 0;
  size_t tokens_ = 0;
};

// Steps that were lost until 6 streams of 200 tokens and an answer of 20 had ended.
uint32_t LossesWithRowsOf(int64_t row_us) {
  uint32_t losses = 0;
  MetricRegistry registry;
  const NodeMetrics metrics(registry, "n0", "r0", "toy");
  Ends ends;
  StepLoop loop(std::make_unique<SlowRanks>(row_us, &losses), {}, metrics, Clock::Real(),
                [&](const std::vector<TokenUpdate>& updates) { ends.Take(updates); });
  std::vector<StepCommand> commands;
  for (uint64_t number = 1; number <= 6; ++number) {
    Submit submit;
    submit.sequence = {{0, number}, 0};
    for (uint64_t i = 0; i < 200; ++i)
      submit.prompt.push_back(static_cast<TokenId>((i * 7 + number) % 64));
    submit.stop.max_tokens = 20;
    commands.emplace_back(std::move(submit));
  }
  loop.Push(std::move(commands));
  loop.Start();
  EXPECT_EQ(ends.TokensOf(6), 120U);
  loop.Stop();
  return losses;
}

TEST(SlowRanks, AFewLostStepsTeachHowLongAStepLasts) {
  EXPECT_LE(LossesWithRowsOf(100'000), 4U);
  EXPECT_LE(LossesWithRowsOf(1'000'000), 8U);
  // Not even a single row ends within the least timeout.
  EXPECT_LE(LossesWithRowsOf(10'000'000), 12U);
}

TEST(SlowRanks, TheFirstStepsAreTooSmallToBeLostWhereRowsTakeLongerThanGuessed) {
  EXPECT_EQ(LossesWithRowsOf(50'000), 0U);
}

}  // namespace
}  // namespace muselet
