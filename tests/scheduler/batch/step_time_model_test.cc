#include "scheduler/batch/step_time_model.h"

#include <gtest/gtest.h>

#include "scheduler/batch/fair_share.h"

namespace muselet {
namespace {

int64_t TrueTimeUs(const StepLoad& load) {
  return static_cast<int64_t>(3000 + 800 * load.rows + 50 * load.context / 1024);
}

TEST(StepTimeModel, LearnsWhatStepsCost) {
  StepTimeModel model;
  for (int i = 0; i < 20; ++i) {
    for (const uint32_t rows : {1U, 8U, 32U, 100U}) {
      for (const uint32_t position : {0U, 500U, 4000U}) {
        const StepLoad load = SliceLoad(position, rows);
        model.Observe(load, TrueTimeUs(load));
      }
    }
  }
  for (const uint32_t rows : {2U, 20U, 64U, 200U}) {
    const StepLoad load = SliceLoad(1000, rows);
    EXPECT_NEAR(model.PredictUs(load), static_cast<double>(TrueTimeUs(load)),
                0.1 * static_cast<double>(TrueTimeUs(load)))
        << rows;
  }
}

TEST(StepTimeModel, ManySmallStepsDoNotWashOutTheLargeOne) {
  StepTimeModel model;
  model.Observe(SliceLoad(0, 200), 400'000);
  for (int i = 0; i < 5000; ++i) model.Observe(SliceLoad(300, 1), 5'000);
  EXPECT_NEAR(model.PredictUs(SliceLoad(0, 200)), 400'000, 60'000);
}

TEST(StepTimeModel, OneStepThatTheMachineHeldUpHardlyCounts) {
  StepTimeModel model;
  const StepLoad load = SliceLoad(300, 1);
  for (int i = 0; i < 20; ++i) model.Observe(load, 3'000);
  model.Observe(load, 300'000);
  EXPECT_LT(model.PredictUs(load), 3'600);
  for (int i = 0; i < 60; ++i) model.Observe(load, 15'000);
  EXPECT_NEAR(model.PredictUs(load), 15'000, 1'500) << "what stays slow is learned";
}

TEST(StepTimeModel, AStepThatWasBrokenOffIsTheLeastUntilOneIsMeasured) {
  StepTimeModel model;
  const StepLoad load = SliceLoad(0, 32);
  for (int i = 0; i < 20; ++i) model.Observe(SliceLoad(0, 4), 4'000);
  const double guess_us = model.PredictUs(load);
  model.Refute(load, static_cast<int64_t>(guess_us));
  EXPECT_EQ(model.PredictUs(load), guess_us) << "no longer than expected: it says nothing";
  model.Refute(load, 3'000'000);
  EXPECT_NEAR(model.PredictUs(load), 3'000'000, 30'000);
  EXPECT_LE(model.RowsWithin(250'000, {}, 0, 512), 4U);
  // It was a rank that hung.
  for (int i = 0; i < 3; ++i) model.Observe(SliceLoad(0, 4), 4'000);
  EXPECT_LT(model.PredictUs(load), 64'000);
}

TEST(StepTimeModel, EverySizeThatWasMeasuredIsPredictedAsMeasured) {
  // Bound by memory at one row, by arithmetic at many: no straight line.
  StepTimeModel model;
  const std::pair<uint32_t, int64_t> sizes[] = {
      {1, 3'000}, {4, 4'000}, {16, 14'000}, {64, 50'000}, {200, 150'000}};
  for (int i = 0; i < 30; ++i) {
    for (const auto& [rows, step_us] : sizes) model.Observe(SliceLoad(0, rows), step_us);
  }
  for (const auto& [rows, step_us] : sizes) {
    const auto expected = static_cast<double>(step_us);
    EXPECT_NEAR(model.PredictUs(SliceLoad(0, rows)), expected, 0.02 * expected) << rows;
  }
}

TEST(StepTimeModel, FollowsAPromptWhoseRowsCostMoreFromStepToStep) {
  StepTimeModel model(StepTimeModel::kAddedRows);
  constexpr uint32_t kRows = 10;
  for (uint32_t position = 0; position < 2000; position += kRows) {
    const StepLoad load = SliceLoad(position, kRows);
    const double true_us = 1'500 * load.rows + 1'400 * load.context / 1024;
    if (position > 200) {
      EXPECT_NEAR(model.PredictUs(load), true_us, 0.04 * true_us) << position;
    }
    model.Observe(load, static_cast<int64_t>(true_us));
  }
}

TEST(StepTimeModel, RowsWithinIsTheMostThatFits) {
  StepTimeModel model;
  const StepLoad decodes = SliceLoad(100, 1);
  const uint32_t rows = model.RowsWithin(30'000, decodes, 0, 1000);
  ASSERT_GT(rows, 0U);
  ASSERT_LT(rows, 1000U);
  EXPECT_LE(model.PredictUs(decodes + SliceLoad(0, rows)), 30'000);
  EXPECT_GT(model.PredictUs(decodes + SliceLoad(0, rows + 1)), 30'000);
  EXPECT_EQ(model.RowsWithin(1, decodes, 0, 1000), 0U);
  EXPECT_EQ(model.RowsWithin(1e9, decodes, 0, 10), 10U);
}

TEST(FairShare, WhoWasAwayEarnsNoCredit) {
  FairShare share;
  share.Enter("busy");
  share.Charge("busy", 1000);
  share.Enter("new");
  EXPECT_EQ(share.Served("new"), 1000);
  share.Charge("new", 10);
  share.Leave("new");
  share.Charge("busy", 500);
  share.Enter("new");
  EXPECT_EQ(share.Served("new"), 1500);
}

TEST(FairShare, AWeightDividesWhatIsCharged) {
  FairShare share;
  share.SetWeight("heavy", 4);
  share.Enter("heavy");
  share.Enter("light");
  share.Charge("heavy", 100);
  share.Charge("light", 100);
  EXPECT_EQ(share.Served("heavy"), 25);
  EXPECT_EQ(share.Served("light"), 100);
}

}  // namespace
}  // namespace muselet
