#include "scheduler/route/replica_health.h"

#include <gtest/gtest.h>

namespace muselet {
namespace {

constexpr int64_t kSecond = 1'000'000;

class ReplicaHealthTest : public ::testing::Test {
 protected:
  bool Report(double cost_us, double peers_us, bool may_eject = true) {
    now_us_ += 100'000;
    steps_ += 10;
    return JudgeSpeed(health_, {cost_us, peers_us, steps_}, may_eject, options_, now_us_);
  }

  RouteOptions options_;
  PlacementHealth health_;
  int64_t now_us_ = 100 * kSecond;
  uint64_t steps_ = 0;
};

TEST_F(ReplicaHealthTest, SlowOneIsAvoidedAtTheSecondReportAndEjectedIfItStaysSlow) {
  EXPECT_FALSE(Report(40, 10));
  EXPECT_EQ(health_.state, HealthState::kHealthy) << "one report is no verdict";
  EXPECT_FALSE(Report(40, 10));
  EXPECT_EQ(health_.state, HealthState::kAvoided);
  int reports = 0;
  while (!Report(40, 10)) ASSERT_LT(++reports, 100);
  EXPECT_EQ(health_.state, HealthState::kEjected);
  EXPECT_NEAR(reports * 100'000, options_.eject_after_us, 200'000);
}

TEST_F(ReplicaHealthTest, RecoveredOneIsHealthyAgain) {
  Report(40, 10);
  Report(40, 10);
  Report(12, 10);
  EXPECT_EQ(health_.state, HealthState::kHealthy);
}

TEST_F(ReplicaHealthTest, ThreeTimesIsTheBound) {
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(Report(29, 10));
  EXPECT_EQ(health_.state, HealthState::kHealthy);
}

TEST_F(ReplicaHealthTest, UnknownSpeedsAreNoVerdict) {
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(Report(0, 10) || Report(40, 0));
  EXPECT_EQ(health_.state, HealthState::kHealthy);
}

TEST_F(ReplicaHealthTest, EjectedOneIsProbedAfterItsTimeAndTheTimeDoubles) {
  while (!Report(40, 10)) {
  }
  now_us_ += options_.eject_time_us - 1000;
  EndEjection(health_, steps_, now_us_);
  EXPECT_EQ(health_.state, HealthState::kEjected);
  now_us_ += 2000;
  EndEjection(health_, steps_, now_us_);
  EXPECT_EQ(health_.state, HealthState::kProbing);
  EXPECT_TRUE(Report(40, 10)) << "still slow after ten steps";
  EXPECT_EQ(health_.eject_time_us, 2 * options_.eject_time_us);
}

TEST_F(ReplicaHealthTest, ProbedOneThatIsFastAgainIsHealthy) {
  while (!Report(40, 10)) {
  }
  now_us_ += options_.eject_time_us;
  EndEjection(health_, steps_, now_us_);
  EXPECT_FALSE(Report(10, 10));
  EXPECT_EQ(health_.state, HealthState::kHealthy);
}

TEST_F(ReplicaHealthTest, AReplicaIsNotEjectedWhereTooFewWouldBeLeft) {
  for (int i = 0; i < 200; ++i) EXPECT_FALSE(Report(40, 10, false));
  EXPECT_EQ(health_.state, HealthState::kAvoided);
}

TEST_F(ReplicaHealthTest, AttemptAfterAttemptGivenUpEjects) {
  int attempts = 0;
  do {
    ASSERT_LT(++attempts, 20);
    now_us_ += kSecond;
    CountEnd(health_);
  } while (!CountFailure(health_, true, options_, now_us_));
  EXPECT_LE(attempts, 8);
}

TEST_F(ReplicaHealthTest, AttemptsThatFailAtOneMomentAreOneFailure) {
  for (int i = 0; i < 64; ++i) EXPECT_FALSE(CountFailure(health_, true, options_, now_us_));
}

TEST_F(ReplicaHealthTest, AFewFailuresAmongManyDoNotEject) {
  for (int i = 0; i < 1000; ++i) {
    now_us_ += kSecond;
    CountEnd(health_);
    if (i % 10 == 0) {
      EXPECT_FALSE(CountFailure(health_, true, options_, now_us_));
    }
  }
}

TEST(MedianTest, IsTheMiddleValue) {
  EXPECT_EQ(MedianOf({}), 0);
  EXPECT_EQ(MedianOf({5}), 5);
  EXPECT_EQ(MedianOf({9, 1, 5}), 5);
}

}  // namespace
}  // namespace muselet
