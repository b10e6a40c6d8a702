#include "node/rank/epoch_leader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/node/rank/rank_fixture.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;
using testing::TestJoin;
using testing::TestPlan;
using testing::TestResult;
using Kind = EpochEvent::Kind;

constexpr int64_t kSecond = 1'000'000;

// Peer p0 is rank 0, and so on.
class EpochLeaderTest : public ::testing::Test {
 protected:
  explicit EpochLeaderTest(uint32_t ranks = 2)
      : leader_(testing::TestEpochPlan(ranks), EpochTiming(), 0) {}

  static std::string Peer(uint32_t rank) { return "p" + std::to_string(rank); }
  EpochOutput Say(uint32_t rank, RankMessage message) {
    return leader_.OnMessage(Peer(rank), std::move(message), now_us_);
  }
  RankJoin Join(uint32_t rank) const {
    RankJoin join = TestJoin(rank);
    join.session = session_;
    return join;
  }
  // All join, make their groups, and are started.
  void Form() {
    Say(0, Join(0));
    Say(1, Join(1));
    ++session_;
    Say(0, RankReady{leader_.epoch()});
    const EpochOutput out = Say(1, RankReady{leader_.epoch()});
    ASSERT_TRUE(leader_.formed());
    ASSERT_EQ(out.events.size(), 1U);
    ASSERT_EQ(out.events[0].kind, Kind::kFormed);
  }
  EpochOutput Submit(int64_t predicted_us = 20'000) {
    StepPlan plan = TestPlan(1);
    plan.predicted_us = predicted_us;
    return leader_.Submit(plan, {}, now_us_);
  }
  // Lets time pass in ticks, during which the given ranks are heard.
  EpochOutput Pass(int64_t us, const std::vector<uint32_t>& alive) {
    EpochOutput all;
    for (const int64_t end_us = now_us_ + us; now_us_ < end_us;) {
      now_us_ += 250'000;
      for (const uint32_t rank : alive) Append(Say(rank, RankAlive{leader_.epoch(), 0, 1}), all);
      Append(leader_.OnTick(now_us_), all);
    }
    return all;
  }
  static void Append(EpochOutput more, EpochOutput& all) {
    for (EpochOutgoing& outgoing : more.send) all.send.push_back(std::move(outgoing));
    for (EpochEvent& event : more.events) all.events.push_back(std::move(event));
  }
  template <typename T>
  static const T* Sent(const EpochOutput& out, const std::string& peer) {
    for (const EpochOutgoing& outgoing : out.send) {
      const auto* message = std::get_if<T>(&outgoing.message);
      if (message == nullptr) continue;
      if (std::find(outgoing.peers.begin(), outgoing.peers.end(), peer) != outgoing.peers.end())
        return message;
    }
    return nullptr;
  }
  static const EpochEvent* Event(const EpochOutput& out, Kind kind) {
    for (const EpochEvent& event : out.events) {
      if (event.kind == kind) return &event;
    }
    return nullptr;
  }
  void ExpectLost(const EpochOutput& out, uint32_t rank, RankLoss loss, const std::string& words) {
    const EpochEvent* lost = Event(out, Kind::kLost);
    ASSERT_NE(lost, nullptr);
    EXPECT_EQ(lost->rank, rank);
    EXPECT_EQ(RankLossName(lost->loss), RankLossName(loss));
    EXPECT_THAT(lost->text, HasSubstr(words));
    EXPECT_FALSE(leader_.formed());
    EXPECT_EQ(leader_.outstanding_count(), 0U);
    for (const uint32_t other : {0U, 1U}) {
      const auto* abort = Sent<RankAbort>(out, Peer(other));
      ASSERT_NE(abort, nullptr) << other;
      EXPECT_EQ(abort->epoch, lost->epoch);
    }
  }

  int64_t now_us_ = 0;
  uint64_t session_ = 1;
  EpochLeader leader_;
};

TEST_F(EpochLeaderTest, FormsAnEpochWhenAllHaveJoinedAndAllAreReady) {
  const EpochOutput first = Say(0, Join(0));
  EXPECT_EQ(leader_.joined_count(), 1U);
  ASSERT_NE(Sent<LeaderAlive>(first, "p0"), nullptr);
  EXPECT_EQ(Sent<LeaderAlive>(first, "p0")->waiting_for, "rank 1 (node n1)");

  const EpochOutput second = Say(1, Join(1));
  const auto* form = Sent<RankForm>(second, "p0");
  ASSERT_NE(form, nullptr);
  ASSERT_NE(Sent<RankForm>(second, "p1"), nullptr);
  EXPECT_EQ(form->epoch, 1U);
  EXPECT_EQ(form->session, 1U);
  EXPECT_EQ(form->places, (std::vector<RankPlace>{{"n0", "127.0.0.1"}, {"n1", "127.0.0.1"}}));

  EXPECT_TRUE(Say(0, RankReady{1}).events.empty());
  EXPECT_FALSE(leader_.formed());
  const EpochOutput third = Say(1, RankReady{1});
  EXPECT_TRUE(leader_.formed());
  EXPECT_NE(Sent<RankStart>(third, "p0"), nullptr);
  EXPECT_NE(Sent<RankStart>(third, "p1"), nullptr);
}

TEST_F(EpochLeaderTest, NamesTheMissingEachTimeTheDeadlinePassesAndGoesOnWaiting) {
  uint32_t told = 0;
  for (int i = 0; i < 4 * 125; ++i) {
    now_us_ += 250'000;
    Say(0, Join(0));
    const EpochOutput out = leader_.OnTick(now_us_);
    if (const EpochEvent* missing = Event(out, Kind::kMissing)) {
      ++told;
      EXPECT_THAT(missing->text, HasSubstr("rank 1 (node n1)"));
      EXPECT_THAT(missing->text, Not(HasSubstr("rank 0")));
    }
  }
  EXPECT_EQ(told, 2U);
  EXPECT_NE(Sent<RankForm>(Say(1, Join(1)), "p0"), nullptr);
}

TEST_F(EpochLeaderTest, RelaysTheValuesOfTheRendezvous) {
  Say(0, Join(0));
  Say(1, Join(1));
  const EpochOutput out = Say(1, RankPut{1, "edge", "address"});
  for (const char* peer : {"p0", "p1"}) {
    ASSERT_NE(Sent<RankValue>(out, peer), nullptr);
    EXPECT_EQ(Sent<RankValue>(out, peer)->value, "address");
  }
  EXPECT_TRUE(Say(1, RankPut{1, "edge", "address"}).events.empty());
  ExpectLost(Say(1, RankPut{1, "edge", "another"}), 1, RankLoss::kNonsense, "second value");
}

TEST_F(EpochLeaderTest, BoundsWhatTheRendezvousHolds) {
  Say(0, Join(0));
  Say(1, Join(1));
  EpochOutput out;
  for (int i = 0; i < 1000 && out.events.empty(); ++i)
    out = Say(0, RankPut{1, std::to_string(i), std::string(60'000, 'x')});
  ExpectLost(out, 0, RankLoss::kNonsense, "more values");
}

TEST_F(EpochLeaderTest, RefusesWhatDoesNotFitAndNamesBothValues) {
  const auto refusal = [this](const std::function<void(RankJoin&)>& change) {
    RankJoin join = Join(1);
    change(join);
    const EpochOutput out = Say(1, join);
    const auto* refused = Sent<RankRefused>(out, "p1");
    return refused == nullptr ? std::string() : refused->reason;
  };
  using ::testing::AllOf;
  EXPECT_THAT(refusal([](RankJoin& j) { j.agreement.software_version = "2.0"; }),
              AllOf(HasSubstr("2.0"), HasSubstr("1.0"), HasSubstr("rank 1")));
  EXPECT_THAT(refusal([](RankJoin& j) { j.agreement.model_digest = "digest-b"; }),
              AllOf(HasSubstr("digest-b"), HasSubstr("digest-a")));
  EXPECT_THAT(refusal([](RankJoin& j) { j.agreement.shard_plan_digest = "plan-b"; }),
              AllOf(HasSubstr("plan-b"), HasSubstr("plan-a")));
  EXPECT_THAT(refusal([](RankJoin& j) { j.agreement.numerics_id = "cuda-fast"; }),
              AllOf(HasSubstr("cuda-fast"), HasSubstr("cpu-strict")));
  EXPECT_THAT(refusal([](RankJoin& j) { j.agreement.kv_blocks = {63}; }),
              AllOf(HasSubstr("63"), HasSubstr("64")));
  EXPECT_THAT(refusal([](RankJoin& j) { j.agreement.kv_blocks = {}; }), HasSubstr("KV groups"));
  EXPECT_THAT(refusal([](RankJoin& j) { j.replica = "r9"; }),
              AllOf(HasSubstr("r9"), HasSubstr("r0")));
  EXPECT_THAT(refusal([](RankJoin& j) { j.rank = 2; }), HasSubstr("ranks 0 to 1"));
  EXPECT_THAT(refusal([](RankJoin& j) { j.node = "n7"; }), AllOf(HasSubstr("n7"), HasSubstr("n1")));
  EXPECT_THAT(refusal([](RankJoin& j) { j.epoch_seen = UINT64_MAX; }), HasSubstr("no sense"));
  EXPECT_EQ(refusal([](RankJoin& j) { j.agreement.kv_blocks = {100}; }), "");
  EXPECT_EQ(leader_.joined_count(), 1U);
}

TEST_F(EpochLeaderTest, DoesNotFillTheLogWithRefusals) {
  RankJoin join = Join(1);
  join.replica = "r9";
  size_t told = 0;
  for (int i = 0; i < 1000; ++i) {
    join.node = "n" + std::to_string(i);
    told += Say(1, join).events.size();
  }
  EXPECT_EQ(told, 10U);
}

TEST_F(EpochLeaderTest, TellsACauseOnceUntilThereIsAnEpoch) {
  RankJoin join = Join(1);
  join.agreement.model_digest = "digest-b";
  const auto told_of_tries = [&] {
    size_t told = 0;
    for (int i = 0; i < 20; ++i) {
      join.pid += 1;  // started anew
      now_us_ += 60 * kSecond;
      const EpochOutput out = Say(1, join);
      EXPECT_NE(Sent<RankRefused>(out, "p1"), nullptr);
      told += out.events.size();
    }
    return told;
  };
  EXPECT_EQ(told_of_tries(), 1U);
  join.agreement.model_digest = "digest-c";
  EXPECT_EQ(told_of_tries(), 1U);
  Form();
  EXPECT_EQ(Event(Say(7, join), Kind::kRefused)->kind, Kind::kRefused);
}

TEST_F(EpochLeaderTest, RefusesASecondProcessOnceTheFirstShowsThatItLives) {
  Form();
  EXPECT_EQ(Sent<RankRefused>(leader_.OnMessage("x", TestJoin(1, 7), now_us_), "x"), nullptr);
  Pass(kSecond, {0, 1});
  const EpochOutput out = leader_.OnMessage("x", TestJoin(1, 7), now_us_);
  ASSERT_NE(Sent<RankRefused>(out, "x"), nullptr);
  EXPECT_THAT(Sent<RankRefused>(out, "x")->reason, HasSubstr("pid 1001"));
  EXPECT_TRUE(leader_.formed());
}

TEST_F(EpochLeaderTest, TakesASecondProcessOnceTheFirstIsLost) {
  Form();
  leader_.OnMessage("x", TestJoin(1, 7), now_us_);
  ExpectLost(leader_.OnUnreachable("p1", "no route", now_us_), 1, RankLoss::kDisconnected,
             "no route");
  leader_.OnMessage("x", TestJoin(1, 7), now_us_);
  EXPECT_NE(Sent<RankForm>(Say(0, Join(0)), "x"), nullptr);
}

TEST_F(EpochLeaderTest, AsksAllWhenSomeConnectionBroke) {
  Form();
  EXPECT_NE(Sent<LeaderAlive>(leader_.OnDisconnect(), "p0"), nullptr);
  EXPECT_NE(Sent<LeaderAlive>(leader_.OnDisconnect(), "p1"), nullptr);
}

TEST_F(EpochLeaderTest, LosesASilentRankWithinItsTime) {
  Form();
  EXPECT_EQ(Event(Pass(2'750'000, {0}), Kind::kLost), nullptr);
  ExpectLost(Pass(500'000, {0}), 1, RankLoss::kSilent, "3.0 s");
}

TEST_F(EpochLeaderTest, CountsSilenceAfreshWhenItWasStuckItself) {
  Form();
  now_us_ += 20 * kSecond;
  EXPECT_EQ(Event(leader_.OnTick(now_us_), Kind::kLost), nullptr);
  EXPECT_TRUE(leader_.formed());
}

TEST_F(EpochLeaderTest, LosesTheRankThatIsFurthestBehind) {
  Form();
  Submit();
  Submit();
  Say(0, RankDone{1, 1, 100, {}, {}});
  Say(0, RankDone{1, 2, 100, {}, {}});
  EXPECT_EQ(Event(Pass(2'750'000, {0, 1}), Kind::kLost), nullptr);
  ExpectLost(Pass(500'000, {0, 1}), 1, RankLoss::kNoProgress, "step 1");
}

TEST_F(EpochLeaderTest, WaitsEightTimesThePredictedTime) {
  Form();
  Submit(/*predicted_us=*/kSecond);
  EXPECT_EQ(Event(Pass(7'750'000, {0, 1}), Kind::kLost), nullptr);
  ExpectLost(Pass(500'000, {0, 1}), 0, RankLoss::kNoProgress, "step 1");
}

TEST_F(EpochLeaderTest, CountsTheTimeOfEachRankFromItsOwnProgress) {
  Form();
  for (int i = 0; i < 4; ++i) Submit();
  for (uint64_t step = 1; step <= 4; ++step) {
    EXPECT_EQ(Event(Pass(2 * kSecond, {0, 1}), Kind::kLost), nullptr);
    EXPECT_TRUE(Say(0, RankDone{1, step, 100, {}, {}}).events.empty());
    EXPECT_EQ(Say(1, RankDone{1, step, 100, {}, TestResult()}).events.size(), 1U);
  }
  EXPECT_EQ(leader_.outstanding_count(), 0U);
  EXPECT_EQ(Event(Pass(20 * kSecond, {0, 1}), Kind::kLost), nullptr);  // nothing to do
}

TEST_F(EpochLeaderTest, HandsStepsOutAndResultsIn) {
  Form();
  const EpochOutput out = Submit();
  ASSERT_EQ(out.send.size(), 1U);
  EXPECT_EQ(out.send[0].peers, (std::vector<std::string>{"p0", "p1"}));
  const auto& step = std::get<RankStep>(out.send[0].message);
  EXPECT_EQ(step.epoch, 1U);
  EXPECT_EQ(step.step, 1U);
  EXPECT_EQ(step.timeout_us, 3 * kSecond);
  EXPECT_EQ(Sent<RankStep>(Submit(), "p1")->step, 2U);
  EXPECT_TRUE(Say(1, RankDone{1, 1, 77, {}, TestResult()}).events.empty());
  const EpochOutput done = Say(0, RankDone{1, 1, 80, {}, {}});
  ASSERT_EQ(done.events.size(), 1U);
  EXPECT_EQ(done.events[0].kind, Kind::kDone);
  EXPECT_EQ(done.events[0].done.step_us, 80) << "the largest of all ranks";
  EXPECT_EQ(done.events[0].done.result.slices[1].token.id, 42);
}

TEST_F(EpochLeaderTest, GivesResultsInTheirOrderHoweverTheRanksAreDone) {
  Form();
  for (int i = 0; i < 3; ++i) Submit();
  for (uint64_t step = 1; step <= 3; ++step)
    EXPECT_TRUE(Say(0, RankDone{1, step, 5, {}, {}}).events.empty());
  for (uint64_t step = 1; step <= 3; ++step) {
    const EpochOutput done = Say(1, RankDone{1, step, 3, {}, TestResult()});
    ASSERT_EQ(done.events.size(), 1U);
    EXPECT_EQ(done.events[0].done.step, step);
    EXPECT_EQ(done.events[0].done.step_us, 5);
  }
  EXPECT_EQ(leader_.outstanding_count(), 0U);
}

TEST(EpochLeaderTiming, AStepMayTakeAsLongAsAllStagesOneAfterTheOther) {
  EpochPlan plan = testing::TestEpochPlan(2);
  plan.pipeline = 2;
  EpochLeader leader(plan, EpochTiming(), 0);
  for (const uint32_t rank : {0U, 1U})
    leader.OnMessage("p" + std::to_string(rank), TestJoin(rank), 0);
  for (const uint32_t rank : {0U, 1U})
    leader.OnMessage("p" + std::to_string(rank), RankReady{1}, 0);
  ASSERT_TRUE(leader.formed());
  StepPlan step = TestPlan(1);
  step.predicted_us = kSecond;
  const EpochOutput out = leader.Submit(step, {}, 0);
  EXPECT_EQ(std::get<RankStep>(out.send[0].message).timeout_us, 16 * kSecond);
}

TEST_F(EpochLeaderTest, GoesOnAfterAStepThatGaveNothing) {
  Form();
  Submit();
  Say(0, RankDone{1, 1, 5, {}, {}});
  const EpochOutput out = Say(1, RankDone{1, 1, 5, Internal("not a number"), {}});
  ASSERT_NE(Event(out, Kind::kDone), nullptr);
  EXPECT_EQ(Event(out, Kind::kDone)->done.fault, Internal("not a number"));
  EXPECT_TRUE(leader_.formed());
}

TEST_F(EpochLeaderTest, LosesARankThatSaysNonsense) {
  const auto after = [this](uint32_t rank, const RankMessage& message) {
    Form();
    Submit();
    Submit();
    return Say(rank, message);
  };
  StepResult few = TestResult();
  few.slices.pop_back();
  StepResult more = TestResult();
  more.slices[1].prompt_logprobs.resize(4);
  StepResult none = TestResult();
  none.slices[0].fault = OkStatus();
  using Loss = RankLoss;
  uint64_t epoch = 0;
  const auto expect = [&](uint32_t rank, Loss loss, const std::string& words,
                          const std::function<RankMessage(uint64_t epoch)>& message) {
    ++epoch;
    ExpectLost(after(rank, message(epoch)), rank, loss, words);
  };
  expect(1, Loss::kNonsense, "step 2 after step 0", [](uint64_t e) {
    return RankDone{e, 2, 1, {}, TestResult()};
  });
  expect(1, Loss::kNonsense, "not given", [](uint64_t e) {
    return RankDone{e, 3, 1, {}, TestResult()};
  });
  expect(1, Loss::kNonsense, "after step 0", [](uint64_t e) {
    return RankDone{e, 0, 1, {}, TestResult()};
  });
  expect(1, Loss::kNonsense, "1 slices", [&](uint64_t e) { return RankDone{e, 1, 1, {}, few}; });
  expect(1, Loss::kNonsense, "did not ask", [&](uint64_t e) {
    return RankDone{e, 1, 1, {}, more};
  });
  expect(1, Loss::kNonsense, "did not ask", [&](uint64_t e) {
    return RankDone{e, 1, 1, {}, none};
  });
  expect(0, Loss::kNonsense, "another rank's", [](uint64_t e) {
    return RankDone{e, 1, 1, {}, TestResult()};
  });
  expect(0, Loss::kFault, "out of memory", [](uint64_t e) {
    return RankDone{e, 1, 1, Internal("out of memory"), {}};
  });
  expect(0, Loss::kNonsense, "never given", [](uint64_t e) { return RankReady{e + 1}; });
  expect(0, Loss::kNonsense, "never given", [](uint64_t e) { return RankAlive{e + 1, 0, 0}; });
  expect(0, Loss::kNonsense, "never given", [](uint64_t e) { return RankPut{e + 1, "k", "v"}; });
  expect(0, Loss::kNonsense, "never given", [](uint64_t e) {
    return RankDone{e + 1, 1, 1, {}, {}};
  });
  expect(0, Loss::kNonsense, "leader's to say", [](uint64_t e) { return RankStart{e}; });
  expect(0, Loss::kFault, "a peer is gone", [](uint64_t e) {
    return RankFault{e, "a peer is gone"};
  });
  Form();
  ExpectLost(leader_.OnMalformed("p0", "bytes", now_us_), 0, Loss::kNonsense, "bytes");
}

TEST_F(EpochLeaderTest, LeavesTheWorkOfAnOldEpochUnread) {
  Form();
  Submit();
  leader_.OnUnreachable("p0", "gone", now_us_);
  Form();
  EXPECT_EQ(leader_.epoch(), 2U);
  Submit();
  for (const RankMessage& late :
       {RankMessage(RankDone{1, 1, 1, {}, TestResult()}), RankMessage(RankFault{1, "late"}),
        RankMessage(RankReady{1}), RankMessage(RankPut{1, "k", "v"}),
        RankMessage(RankAlive{1, 0, 0})}) {
    const EpochOutput out = Say(1, late);
    EXPECT_TRUE(out.events.empty());
    EXPECT_TRUE(out.send.empty());
  }
  EXPECT_TRUE(leader_.formed());
  EXPECT_EQ(leader_.outstanding_count(), 1U);
}

TEST_F(EpochLeaderTest, IgnoresStrangersButTellsThemThatTheirEpochIsOver) {
  Form();
  for (const RankMessage& message :
       {RankMessage(RankDone{1, 1, 1, {}, {}}), RankMessage(RankFault{1, "x"}),
        RankMessage(RankReady{1}), RankMessage(RankPut{1, "k", "v"}), RankMessage(RankStart{1})}) {
    const EpochOutput out = leader_.OnMessage("stranger", message, now_us_);
    EXPECT_TRUE(out.send.empty() && out.events.empty());
  }
  EXPECT_TRUE(leader_.OnMalformed("stranger", "noise", now_us_).events.empty());
  const EpochOutput refused = leader_.OnOtherVersion("stranger", "wire version 2, not 1", now_us_);
  const auto* answer = Sent<RankRefused>(refused, "stranger");
  ASSERT_NE(answer, nullptr);
  EXPECT_NE(answer->reason.find("version 2, not 1"), std::string::npos);
  ASSERT_EQ(refused.events.size(), 1U);
  EXPECT_EQ(refused.events[0].kind, EpochEvent::Kind::kRefused);
  EXPECT_TRUE(leader_.OnUnreachable("stranger", "gone", now_us_).events.empty());
  const EpochOutput out = leader_.OnMessage("stranger", RankAlive{1, 0, 0}, now_us_);
  EXPECT_NE(Sent<RankAbort>(out, "stranger"), nullptr);
  EXPECT_TRUE(leader_.formed());
}

TEST_F(EpochLeaderTest, EndsAnEpochWhoseGroupsAreNotReadyInTime) {
  Say(0, Join(0));
  Say(1, Join(1));
  ++session_;
  Say(0, RankReady{1});
  EXPECT_EQ(Event(Pass(29'750'000, {0, 1}), Kind::kLost), nullptr);
  ExpectLost(Pass(500'000, {0, 1}), 1, RankLoss::kNotReady, "not ready are: rank 1 (node n1)");
  Form();
  EXPECT_EQ(leader_.epoch(), 2U);
}

TEST_F(EpochLeaderTest, TakesAJoinWithinAnEpochForALoss) {
  Form();
  EXPECT_TRUE(Say(1, TestJoin(1)).events.empty());  // sent before Form arrived
  EXPECT_TRUE(leader_.formed());
  const EpochOutput out = Say(1, Join(1));
  ExpectLost(out, 1, RankLoss::kRejoined, "joins anew");
  EXPECT_EQ(leader_.joined_count(), 1U);
  EXPECT_NE(Sent<RankForm>(Say(0, Join(0)), "p1"), nullptr);
}

TEST_F(EpochLeaderTest, ChoosesEpochsBeyondWhatRanksHaveSeen) {
  RankJoin join = Join(0);
  join.epoch_seen = 41;
  Say(0, join);
  EXPECT_EQ(Sent<RankForm>(Say(1, Join(1)), "p0")->epoch, 42U);
}

TEST_F(EpochLeaderTest, LosesARankThatFallsTooFarBehind) {
  Form();
  EpochOutput out;
  for (uint64_t step = 1; step <= kRankStepsMax + 1 && Event(out, Kind::kLost) == nullptr; ++step) {
    out = Submit();
    if (leader_.formed()) Say(1, RankDone{1, step, 1, {}, TestResult()});
  }
  ExpectLost(out, 0, RankLoss::kNoProgress, "64 steps behind");
}

TEST_F(EpochLeaderTest, ForgetsARankThatLeavesBeforeThereIsAnEpoch) {
  Say(0, Join(0));
  const EpochOutput out = leader_.OnUnreachable("p0", "gone", now_us_);
  ASSERT_NE(Event(out, Kind::kLeft), nullptr);
  EXPECT_EQ(leader_.joined_count(), 0U);
}

}  // namespace
}  // namespace muselet
