#include "node/rank/epoch_member.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/node/rank/rank_fixture.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;
using testing::TestJoin;
using testing::TestPlan;
using Kind = MemberEvent::Kind;

constexpr int64_t kSecond = 1'000'000;

class EpochMemberTest : public ::testing::Test {
 protected:
  EpochMemberTest() : member_(TestJoin(1), 2, "tcp://leader:1", EpochTiming(), 0) {}

  MemberOutput Hear(RankMessage message) { return member_.OnMessage(std::move(message), now_us_); }
  MemberOutput Tick(int64_t us) {
    now_us_ += us;
    return member_.OnTick({}, now_us_);
  }
  static RankForm FormOf(uint64_t epoch, uint64_t session) {
    return {epoch, session, {{"n0", "h"}, {"n1", "h"}}, 30 * kSecond};
  }
  void Run(uint64_t epoch = 1, uint64_t session = 1) {
    ASSERT_EQ(Hear(FormOf(epoch, session)).events.size(), 1U);
    ASSERT_EQ(member_.GroupsMade(epoch).send.size(), 1U);
    const MemberOutput out = Hear(RankStart{epoch});
    ASSERT_EQ(out.events.size(), 1U);
    ASSERT_EQ(out.events[0].kind, Kind::kStart);
  }
  MemberOutput Step(uint64_t epoch, uint64_t step) {
    return Hear(RankStep{epoch, step, kSecond, TestPlan(step), {}});
  }
  template <typename T>
  static const T* Sent(const MemberOutput& out) {
    for (const RankMessage& message : out.send) {
      if (const auto* found = std::get_if<T>(&message)) return found;
    }
    return nullptr;
  }
  static void ExpectEnd(const MemberOutput& out, bool told, const std::string& words) {
    ASSERT_EQ(out.events.size(), 1U);
    EXPECT_EQ(out.events[0].kind, Kind::kEnd);
    EXPECT_THAT(out.events[0].text, HasSubstr(words));
    EXPECT_EQ(Sent<RankFault>(out) != nullptr, told);
  }

  int64_t now_us_ = 0;
  EpochMember member_;
};

TEST_F(EpochMemberTest, JoinsAgainAndAgainUntilItIsAnswered) {
  int joins = 0;
  for (int i = 0; i < 8; ++i) joins += Sent<RankJoin>(Tick(250'000)) != nullptr ? 1 : 0;
  EXPECT_EQ(joins, 8);
  Hear(FormOf(1, 1));
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Sent<RankJoin>(Tick(250'000)), nullptr);
}

TEST_F(EpochMemberTest, SaysWhatItWaitsFor) {
  const auto waiting = [this] {
    std::string text;
    for (int i = 0; i < 61 * 4; ++i) {
      const MemberOutput out = Tick(250'000);
      for (const MemberEvent& event : out.events) {
        if (event.kind == Kind::kWaiting) text = event.text;
      }
    }
    return text;
  };
  EXPECT_THAT(waiting(), HasSubstr("tcp://leader:1 does not answer"));
  Hear(LeaderAlive{0, "rank 0 (node n0)"});
  std::string text;
  for (int i = 0; i < 61 * 4; ++i) {
    Hear(LeaderAlive{0, "rank 0 (node n0)"});
    const MemberOutput out = Tick(250'000);
    if (!out.events.empty()) text = out.events[0].text;
  }
  EXPECT_THAT(text, HasSubstr("waits for rank 0 (node n0)"));
}

TEST_F(EpochMemberTest, SaysSoonThatItsLeaderDoesNotAnswerAndThenRarely) {
  const auto told_within = [this](int64_t us) {
    size_t told = 0;
    for (const int64_t end_us = now_us_ + us; now_us_ < end_us;)
      told += Tick(250'000).events.size();
    return told;
  };
  EXPECT_EQ(told_within(4'750'000), 0U);
  EXPECT_EQ(told_within(kSecond), 1U);
  EXPECT_EQ(told_within(50 * kSecond), 0U);
  EXPECT_EQ(told_within(120 * kSecond), 2U);
  // It was there, and is gone again.
  Hear(LeaderAlive{0, "rank 0 (node n0)"});
  EXPECT_EQ(told_within(6 * kSecond), 1U);
}

TEST_F(EpochMemberTest, KnowsAnEndOnPurpose) {
  Run();
  const MemberOutput out = Hear(RankAbort{1, "the leader stops", /*on_purpose=*/true});
  ExpectEnd(out, /*told=*/false, "the leader stops");
  EXPECT_TRUE(out.events[0].on_purpose);
  member_.TornDown(1, now_us_);
  Run(2, 2);
  EXPECT_FALSE(Hear(RankAbort{2, "rank 0 is lost"}).events[0].on_purpose);
}

TEST_F(EpochMemberTest, GoesThroughAnEpoch) {
  const MemberOutput form = Hear(FormOf(5, 1));
  ASSERT_EQ(form.events.size(), 1U);
  EXPECT_EQ(form.events[0].kind, Kind::kMakeGroups);
  EXPECT_EQ(form.events[0].epoch, 5U);
  EXPECT_EQ(form.events[0].form.places.size(), 2U);

  const auto put = member_.Put(5, "edge", "address");
  ASSERT_TRUE(put.ok());
  EXPECT_EQ(Sent<RankPut>(*put)->key, "edge");
  const MemberOutput value = Hear(RankValue{5, "edge", "address"});
  ASSERT_EQ(value.events.size(), 1U);
  EXPECT_EQ(value.events[0].value, "address");

  EXPECT_EQ(Sent<RankReady>(member_.GroupsMade(5))->epoch, 5U);
  EXPECT_EQ(Hear(RankStart{5}).events[0].kind, Kind::kStart);
  const MemberOutput step = Step(5, 1);
  ASSERT_EQ(step.events.size(), 1U);
  EXPECT_EQ(step.events[0].step.plan.tokens, TestPlan(1).tokens);
  Step(5, 2);
  const MemberOutput done = member_.Done(5, {}, now_us_);
  EXPECT_EQ(Sent<RankDone>(done)->step, 1U);
  EXPECT_EQ(Sent<RankDone>(member_.Done(5, {}, now_us_))->step, 2U);

  ExpectEnd(Hear(RankAbort{5, "rank 0 is silent"}), /*told=*/false, "rank 0 is silent");
  EXPECT_FALSE(member_.alive(5));
  EXPECT_EQ(Sent<RankJoin>(Tick(250'000)), nullptr);  // not before it is torn down
  const MemberOutput again = member_.TornDown(5, now_us_);
  ASSERT_NE(Sent<RankJoin>(again), nullptr);
  EXPECT_EQ(Sent<RankJoin>(again)->session, 2U);
  EXPECT_EQ(Sent<RankJoin>(again)->epoch_seen, 5U);
}

TEST_F(EpochMemberTest, DiesRatherThanComputeStepsOutOfOrder) {
  Run();
  Step(1, 1);
  ExpectEnd(Step(1, 3), /*told=*/true, "step 3 came after step 1");
  member_.TornDown(1, now_us_);
  Tick(kSecond);
  Run(2, 2);
  Step(2, 1);
  ExpectEnd(Step(2, 1), /*told=*/true, "step 1 came after step 1");
}

TEST_F(EpochMemberTest, TakesNoStepBeforeTheStart) {
  Hear(FormOf(1, 1));
  ExpectEnd(Step(1, 1), /*told=*/true, "step 1");
}

TEST_F(EpochMemberTest, BoundsTheStepsThatItHolds) {
  Run();
  for (uint64_t step = 1; step <= kRankStepsMax; ++step)
    ASSERT_EQ(Step(1, step).events[0].kind, Kind::kStep);
  ExpectEnd(Step(1, kRankStepsMax + 1), /*told=*/true, "outstanding");
}

TEST_F(EpochMemberTest, LeavesTheWorkOfAnotherEpochUnread) {
  Run(4);
  EXPECT_TRUE(Step(3, 1).events.empty());
  EXPECT_TRUE(Hear(RankAbort{3, "old"}).events.empty());
  EXPECT_TRUE(Hear(RankStart{3}).events.empty());
  EXPECT_TRUE(Hear(RankValue{3, "k", "v"}).events.empty());
  EXPECT_TRUE(Hear(FormOf(9, 1)).events.empty());
  EXPECT_TRUE(member_.alive(4));
  EXPECT_TRUE(member_.Done(3, {}, now_us_).send.empty());
  EXPECT_TRUE(member_.Fail(3, "old", now_us_).events.empty());
  EXPECT_TRUE(member_.GroupsMade(3).send.empty());
  EXPECT_EQ(member_.Put(3, "k", "v").status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(member_.Put(4, "k", std::string(100'000, 'v')).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(EpochMemberTest, TakesNoFormOfAnEarlierJoin) {
  Run(1);
  member_.OnConnection(false, now_us_);
  member_.TornDown(1, now_us_);
  EXPECT_TRUE(Hear(FormOf(2, 1)).events.empty());
  member_.OnConnection(false, now_us_);
  EXPECT_TRUE(Hear(FormOf(2, 2)).events.empty());
  EXPECT_EQ(Hear(FormOf(2, 3)).events.size(), 1U);
}

TEST_F(EpochMemberTest, EndsTheEpochOfALeaderThatIsGoneOrSilent) {
  Run(1);
  ExpectEnd(member_.OnConnection(false, now_us_), /*told=*/false, "broke");
  member_.TornDown(1, now_us_);
  Tick(250'000);
  Run(2, 2);
  for (int i = 0; i < 11; ++i) EXPECT_NE(Sent<RankAlive>(Tick(250'000)), nullptr);
  ExpectEnd(Tick(250'000), /*told=*/false, "silent for 3 s");
}

TEST_F(EpochMemberTest, CountsSilenceAfreshWhenItWasStuckItself) {
  Run();
  EXPECT_TRUE(Tick(20 * kSecond).events.empty());
  EXPECT_TRUE(member_.alive(1));
}

TEST_F(EpochMemberTest, EndsAnEpochThatTheLeaderHasLeft) {
  Run(1);
  ExpectEnd(Hear(LeaderAlive{2, ""}), /*told=*/false, "epoch 2");
}

TEST_F(EpochMemberTest, EndsTheEpochOfALeaderThatItDoesNotUnderstand) {
  Run(1);
  ExpectEnd(member_.OnMalformed("a slot that is not there", now_us_), /*told=*/true, "a slot");
}

TEST_F(EpochMemberTest, ExitsWhereTheLeaderHasAnotherVersionOfTheWire) {
  const MemberOutput out = member_.OnOtherVersion("wire version 2, this has 1", now_us_);
  ASSERT_EQ(out.events.size(), 1U);
  EXPECT_EQ(out.events[0].kind, Kind::kExit);
  EXPECT_TRUE(out.events[0].refused);
  EXPECT_NE(out.events[0].text.find("wire version 2"), std::string::npos);
}

TEST_F(EpochMemberTest, EndsAnEpochBeforeItExitsForAnotherVersion) {
  Run(1);
  ExpectEnd(member_.OnOtherVersion("wire version 2", now_us_), /*told=*/true, "version 2");
}

TEST_F(EpochMemberTest, RefusesALeaderWithAnotherNumberOfRanks) {
  RankForm form = FormOf(1, 1);
  form.places.pop_back();
  ExpectEnd(Hear(form), /*told=*/true, "1 ranks");
}

TEST_F(EpochMemberTest, ExitsWhenItIsRefused) {
  EXPECT_TRUE(Hear(RankRefused{7, "for another join"}).events.empty());
  const MemberOutput out = Hear(RankRefused{1, "mixed releases"});
  ASSERT_EQ(out.events.size(), 1U);
  EXPECT_EQ(out.events[0].kind, Kind::kExit);
  EXPECT_TRUE(out.events[0].refused);
  EXPECT_EQ(out.events[0].text, "mixed releases");
  EXPECT_TRUE(Hear(FormOf(1, 1)).events.empty());
  EXPECT_TRUE(Tick(kSecond).send.empty());
}

TEST_F(EpochMemberTest, ExitsWhenItsEpochCannotBeEnded) {
  Run();
  Hear(RankAbort{1, "over"});
  MemberOutput out;
  for (int i = 0; i < 21 && out.events.empty(); ++i) out = Tick(250'000);
  ASSERT_EQ(out.events.size(), 1U);
  EXPECT_EQ(out.events[0].kind, Kind::kExit);
  EXPECT_FALSE(out.events[0].refused);
}

TEST_F(EpochMemberTest, PausesAfterEpochsThatCameToNothing) {
  std::vector<int64_t> pauses;
  uint64_t session = 1;
  for (uint64_t epoch = 1; epoch <= 8; ++epoch) {
    ASSERT_EQ(Hear(FormOf(epoch, session)).events.size(), 1U);
    member_.Fail(epoch, "no shared memory", now_us_);
    const int64_t from_us = now_us_;
    MemberOutput out = member_.TornDown(epoch, now_us_);
    while (Sent<RankJoin>(out) == nullptr) out = Tick(50'000);
    session = Sent<RankJoin>(out)->session;
    pauses.push_back(now_us_ - from_us);
  }
  EXPECT_GE(pauses[0], 100'000);
  EXPECT_LE(pauses[0], 150'000);
  EXPECT_GE(pauses[7], 5 * kSecond);
  EXPECT_LE(pauses[7], 6 * kSecond);
}

}  // namespace
}  // namespace muselet
