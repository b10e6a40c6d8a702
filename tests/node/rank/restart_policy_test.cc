// Transcripts: how ranks die, and when they are started again.
#include "node/rank/restart_policy.h"

#include <gtest/gtest.h>

#include <csignal>
#include <vector>

namespace muselet {
namespace {

constexpr int64_t kSecond = 1'000'000;

class Rank {
 public:
  // Runs it for `lived_us` and lets it die; gives the pause until the next start, after which it
  // runs again.
  int64_t Die(const RankDeath& death, int64_t lived_us, const std::string& reason = "") {
    policy_.OnStart(now_us_);
    now_us_ += lived_us;
    last_ = policy_.OnDeath(death, reason, /*worked=*/true, now_us_);
    const int64_t pause_us = last_.start_us - now_us_;
    now_us_ = last_.start_us;
    return pause_us;
  }
  const RestartPolicy::Decision& last() const { return last_; }

 private:
  RestartPolicy policy_{RestartOptions{}};
  RestartPolicy::Decision last_;
  int64_t now_us_ = 5 * kSecond;
};

TEST(RestartPolicy, TellsHowAProcessDied) {
  using Cause = RankDeath::Cause;
  for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL}) {
    EXPECT_EQ(DescribeDeath(false, signal).cause, Cause::kOwnFault) << signal;
  }
  EXPECT_EQ(DescribeDeath(false, SIGSEGV).how, "killed by SIGSEGV");
  EXPECT_EQ(DescribeDeath(false, SIGTERM).cause, Cause::kOutside);
  EXPECT_EQ(DescribeDeath(false, SIGKILL).cause, Cause::kOutside);
  EXPECT_NE(DescribeDeath(false, SIGKILL).how.find("memory ran out"), std::string::npos);
  EXPECT_EQ(DescribeDeath(true, kRankExitRefused).cause, Cause::kRefused);
  EXPECT_EQ(DescribeDeath(true, kRankExitFault).cause, Cause::kOwnFault);
  EXPECT_EQ(DescribeDeath(true, kRankExitStuck).cause, Cause::kHung);
  EXPECT_EQ(DescribeDeath(true, 2).cause, Cause::kUnable);
  EXPECT_EQ(DescribeDeath(true, 127).cause, Cause::kUnable);
  EXPECT_EQ(DescribeDeath(true, 0).cause, Cause::kOutside);
}

TEST(RestartPolicy, DoublesThePauseUpToTenSecondsAndForgetsAfterACalmMinute) {
  Rank rank;
  const RankDeath refused = DescribeDeath(true, kRankExitRefused);
  std::vector<int64_t> pauses;
  for (int i = 0; i < 9; ++i) pauses.push_back(rank.Die(refused, kSecond) / 1000);
  EXPECT_EQ(pauses, (std::vector<int64_t>{100, 200, 400, 800, 1600, 3200, 6400, 10'000, 10'000}));
  EXPECT_EQ(rank.Die(refused, 59 * kSecond), 10 * kSecond);
  EXPECT_EQ(rank.Die(refused, 60 * kSecond), kSecond / 10);
}

TEST(RestartPolicy, QuarantinesTheThirdFaultOfItsOwnWithinAMinute) {
  Rank rank;
  const RankDeath crash = DescribeDeath(false, SIGSEGV);
  rank.Die(crash, kSecond);
  EXPECT_FALSE(rank.last().quarantined);
  rank.Die(DescribeDeath(true, kRankExitFault), kSecond);
  EXPECT_FALSE(rank.last().quarantined);
  EXPECT_EQ(rank.Die(crash, kSecond), RestartOptions{}.quarantine_us);
  EXPECT_TRUE(rank.last().quarantined);
  // Then it is tried again, and begins to count anew.
  EXPECT_EQ(rank.Die(crash, kSecond), kSecond / 10);
  EXPECT_FALSE(rank.last().quarantined);
}

TEST(RestartPolicy, DoesNotQuarantineFaultsFarApart) {
  Rank rank;
  for (int i = 0; i < 10; ++i) {
    rank.Die(DescribeDeath(false, SIGSEGV), 31 * kSecond);
    EXPECT_FALSE(rank.last().quarantined) << i;
  }
}

TEST(RestartPolicy, NeverQuarantinesForKillsFromOutsideAndKeepsTheirPauseShort) {
  Rank rank;
  for (int i = 0; i < 50; ++i) {
    EXPECT_LE(rank.Die(DescribeDeath(false, SIGKILL), kSecond), kSecond);
    EXPECT_FALSE(rank.last().quarantined);
    EXPECT_FALSE(rank.last().repeated);
  }
  // They do not count towards it either.
  rank.Die(DescribeDeath(false, SIGSEGV), kSecond);
  rank.Die(DescribeDeath(false, SIGKILL), kSecond);
  rank.Die(DescribeDeath(false, SIGSEGV), kSecond);
  EXPECT_FALSE(rank.last().quarantined);
}

TEST(RestartPolicy, SaysOnceWhyARankIsRefused) {
  Rank rank;
  const RankDeath refused = DescribeDeath(true, kRankExitRefused);
  rank.Die(refused, kSecond, "another model");
  EXPECT_FALSE(rank.last().repeated);
  rank.Die(refused, kSecond, "another model");
  EXPECT_TRUE(rank.last().repeated);
  rank.Die(refused, kSecond, "another version");
  EXPECT_FALSE(rank.last().repeated);
}

}  // namespace
}  // namespace muselet
