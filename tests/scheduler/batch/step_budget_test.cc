// How the batcher shares a step between running decodes and arriving prompts. The machine is
// played: a step takes base + row_us * rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

struct Machine {
  int64_t base_us = 2'000;
  int64_t row_us = 1'000;
};

// Plays steps on virtual time and notes when tokens come.
class Player {
 public:
  explicit Player(const Machine& machine, bool warm = true)
      : machine_(machine), batcher_(WithoutCache(), {1000, 4096, {16, {{2048, 0}}}}) {
    // What a replica learns in its first minute.
    if (!warm) return;
    for (const uint32_t rows : {1U, 4U, 16U, 32U, 200U}) Warm(rows);
  }

  void Admit(uint64_t number, uint32_t prompt_count, uint32_t max_tokens = 3500) {
    Submit submit;
    submit.sequence = {{0, number}, 0};
    for (uint32_t i = 0; i < prompt_count; ++i)
      submit.prompt.push_back(static_cast<TokenId>((number * 31 + i) % 1000));
    submit.stop.max_tokens = max_tokens;
    arrived_us_[number] = now_us_;
    ASSERT_TRUE(batcher_.Admit(std::move(submit), now_us_).ok());
  }

  void Step() {
    const StepPlan plan = batcher_.Plan(now_us_);
    ASSERT_FALSE(plan.empty());
    last_rows_ = {};
    StepResult result;
    for (const SequenceSlice& slice : plan.slices) {
      const bool prefill = slice.first_position < batcher_.InSlot(slice.slot).prefill_end;
      (prefill ? last_rows_.prefill : last_rows_.decodes) += slice.row_count;
      result.slices.emplace_back().sampled = slice.samples;
      result.slices.back().token.id = 7;
    }
    last_step_us_ = machine_.base_us + machine_.row_us * plan.row_count();
    now_us_ += last_step_us_;
    batcher_.Commit(plan.number, result, last_step_us_, now_us_);
    for (const TokenUpdate& update : batcher_.TakeUpdates()) {
      const uint64_t number = update.sequence.request.low;
      if (update.tokens.empty()) continue;
      if (!first_us_.contains(number)) first_us_[number] = now_us_ - arrived_us_[number];
    }
  }
  void StepUntilFirst(uint64_t number) {
    while (!first_us_.contains(number)) {
      Step();
      steps_us_.push_back(last_step_us_);
    }
  }

  // From arrival to the first token; 0 = not there yet.
  int64_t FirstTokenUs(uint64_t number) const {
    const auto found = first_us_.find(number);
    return found == first_us_.end() ? 0 : found->second;
  }
  // Of the last step.
  struct RowCounts {
    uint32_t decodes = 0;
    uint32_t prefill = 0;
  };
  const RowCounts& last_rows() const { return last_rows_; }
  Machine& machine() { return machine_; }
  int64_t last_step_us() const { return last_step_us_; }
  void ForgetSteps() { steps_us_.clear(); }
  // Of StepUntilFirst, since ForgetSteps.
  int64_t LongestStepUs() const { return *std::max_element(steps_us_.begin(), steps_us_.end()); }

 private:
  static BatchOptions WithoutCache() {
    BatchOptions options;
    options.prefix_cache = false;
    return options;
  }
  void Warm(uint32_t rows) {
    const uint64_t number = 1'000'000 + rows;
    for (int i = 0; i < 12; ++i) {
      Admit(number + static_cast<uint64_t>(i) * 1000, rows, 1);
      Step();
    }
  }

  Machine machine_;
  Batcher batcher_;
  int64_t now_us_ = 1;
  int64_t last_step_us_ = 0;
  RowCounts last_rows_;
  std::map<uint64_t, int64_t> arrived_us_;
  std::map<uint64_t, int64_t> first_us_;
  std::vector<int64_t> steps_us_;
};

// The two floors pull against each other: with equal shares of the time both hold.
TEST(StepBudget, ALongPromptAtMostDoublesTheStepAndIsAtMostHalvedItself) {
  for (const uint64_t streams : {1U, 4U, 16U}) {
    SCOPED_TRACE(streams);
    Player alone{Machine()};
    alone.Admit(1, 2000);
    alone.StepUntilFirst(1);

    Player shared{Machine()};
    for (uint64_t number = 1; number <= streams; ++number) shared.Admit(number, 10);
    for (uint64_t number = 1; number <= streams; ++number) shared.StepUntilFirst(number);
    for (int i = 0; i < 20; ++i) shared.Step();
    const int64_t undisturbed_us = shared.last_step_us();
    shared.ForgetSteps();
    shared.Admit(100, 2000);
    shared.StepUntilFirst(100);
    EXPECT_LE(static_cast<double>(shared.LongestStepUs()),
              2.1 * static_cast<double>(undisturbed_us));
    EXPECT_LE(static_cast<double>(shared.FirstTokenUs(100)),
              2.1 * static_cast<double>(alone.FirstTokenUs(1)));
  }
}

TEST(StepBudget, WhileManyWaitThePromptsGetTheLargerShare) {
  Player player{Machine()};
  player.Admit(1, 10);
  player.StepUntilFirst(1);
  for (int i = 0; i < 5; ++i) player.Step();
  const int64_t decode_us = player.last_step_us();
  for (uint64_t number = 2; number <= 17; ++number) player.Admit(number, 80);
  player.Step();
  EXPECT_GT(player.last_step_us(), 10 * decode_us);
  EXPECT_LE(player.last_step_us(), BatchOptions().step_target_us);
}

TEST(StepBudget, ABurstOfPromptsIsFinishedOneByOneTheShortestFirst) {
  Player player{Machine()};
  std::vector<int64_t> first_us;
  for (uint64_t number = 1; number <= 32; ++number)
    player.Admit(number, static_cast<uint32_t>(20 + (number * 37) % 120));
  for (uint64_t number = 1; number <= 32; ++number) player.StepUntilFirst(number);
  for (uint64_t number = 1; number <= 32; ++number) first_us.push_back(player.FirstTokenUs(number));
  std::sort(first_us.begin(), first_us.end());
  EXPECT_LT(2 * first_us[16], first_us[31]) << "the median must not wait for all";
  EXPECT_LT(player.FirstTokenUs(13), player.FirstTokenUs(16)) << "21 tokens before 132";
}

TEST(StepBudget, ALongPromptIsNotPassedByShortOnesForEver) {
  Player player{Machine()};
  player.Admit(1, 1000, 1);
  // As many short prompts as the machine can take.
  uint64_t number = 2;
  for (int i = 0; i < 400 && player.FirstTokenUs(1) == 0; ++i) {
    for (int k = 0; k < 4; ++k) player.Admit(number++, 60, 1);
    player.Step();
  }
  EXPECT_GT(player.FirstTokenUs(1), 0);
}

TEST(StepBudget, AShortPromptDoesNotWaitForALongOneThatIsUnderWay) {
  Player player{Machine()};
  player.Admit(1, 3000);
  player.Step();
  player.Admit(2, 30);
  player.StepUntilFirst(2);
  EXPECT_EQ(player.FirstTokenUs(1), 0);
  EXPECT_LE(player.FirstTokenUs(2), 2 * BatchOptions().step_max_us);
}

TEST(StepBudget, AfterSomePlansWithDecodesAndPrefillComesOneWithDecodesAlone) {
  Player player{Machine()};
  for (uint64_t number = 1; number <= 4; ++number) player.Admit(number, 10);
  for (uint64_t number = 1; number <= 4; ++number) player.StepUntilFirst(number);
  for (int i = 0; i < 5; ++i) player.Step();
  player.Admit(100, 2000);
  uint32_t in_a_row = 0;
  uint32_t alone = 0;
  while (player.FirstTokenUs(100) == 0) {
    player.Step();
    ASSERT_GE(player.last_rows().decodes, 4U);
    if (player.last_rows().prefill > 0) {
      EXPECT_LE(++in_a_row, Batcher::kMixedInARowMax);
    } else {
      EXPECT_EQ(std::exchange(in_a_row, 0), Batcher::kMixedInARowMax);
      ++alone;
    }
  }
  EXPECT_GT(alone, 5U);
}

// What the decodes take longer must not be laid to the prompt.
TEST(StepBudget, APromptBesideDecodesThatSlowDownIsNotStarved) {
  Player player{Machine()};
  for (uint64_t number = 1; number <= 8; ++number) player.Admit(number, 10);
  for (uint64_t number = 1; number <= 8; ++number) player.StepUntilFirst(number);
  for (int i = 0; i < 20; ++i) player.Step();
  player.Admit(100, 1500);
  uint32_t steps = 0;
  uint32_t rows = 0;
  while (player.FirstTokenUs(100) == 0) {
    player.machine().base_us += 100;
    player.Step();
    ++steps;
    rows += player.last_rows().prefill;
  }
  EXPECT_GE(rows, 6 * steps) << steps << " steps";
}

TEST(StepBudget, BeforeAnyPrefillWasMeasuredAStepHasLittleOfIt) {
  Player player{{2'000, 100'000}, /*warm=*/false};
  for (uint64_t number = 1; number <= 8; ++number) player.Admit(number, 100);
  player.Step();
  EXPECT_EQ(player.last_rows().prefill, 31U);
  player.Step();
  EXPECT_LE(player.last_step_us(), BatchOptions().step_max_us);
}

}  // namespace
}  // namespace muselet
