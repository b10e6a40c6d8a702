// Transcripts of the choice of a replica: cached prefixes, predicted time, policies, health,
// suspects.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/scheduler/route/router_fixture.h"

namespace muselet {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RouterPlacementTest : public RouterTest {
 protected:
  void JoinAll(int nodes) {
    Say("g", GatewayHello("g"));
    for (int i = 0; i < nodes; ++i) {
      const std::string node = "n" + std::to_string(i);
      Say(node, NodeHello(node));
      Say(node, SpeedOf(node, 100));
    }
  }
  Report SpeedOf(const std::string& node, double prefill_token_us, int64_t step_us = 10'000) {
    Report report = ReportOf(node);
    report.prefill_token_us = prefill_token_us;
    report.step_us = step_us;
    report.steps = 10 * report_sequence_;
    return report;
  }
  static std::vector<BlockHash> Hashes(uint64_t chain, size_t blocks) {
    std::vector<BlockHash> hashes;
    for (size_t i = 0; i < blocks; ++i) hashes.push_back({chain, i + 1});
    return hashes;
  }
  static CacheEvents CacheOf(const std::string& node, uint64_t sequence,
                             std::vector<BlockHash> added, bool snapshot = false) {
    CacheEvents events;
    events.replica = node + "-r";
    events.epoch = 1;
    events.sequence = sequence;
    events.snapshot = snapshot;
    events.added = std::move(added);
    return events;
  }
  static Place Prompt(uint64_t id, uint64_t chain, size_t blocks = 50) {
    Place place = PlaceOf(id);
    place.block_hashes = Hashes(chain, blocks);
    place.prompt_tokens = static_cast<uint32_t>(blocks * kHashBlockTokens);
    return place;
  }
  std::string ReplicaOf(const Place& place) {
    const auto said = Say("g", place);
    EXPECT_EQ(said.size(), 1U);
    const auto* ticket = std::get_if<Ticket>(&last_.back().message);
    return ticket == nullptr ? "none" : ticket->replica;
  }
};

TEST_F(RouterPlacementTest, PromptGoesWhereItsPrefixIsCached) {
  JoinAll(3);
  Say("n2", CacheOf("n2", 1, Hashes(7, 40), true));
  EXPECT_EQ(ReplicaOf(Prompt(1, 7)), "n2-r");
  EXPECT_EQ(ReplicaOf(Prompt(2, 8)), "n0-r") << "nobody has it";
  EXPECT_EQ(router_->counts().cached_prompt_tokens, 640U);
  EXPECT_EQ(router_->counts().prompt_tokens, 1600U);
}

TEST_F(RouterPlacementTest, LongQueueOutweighsACachedPrefix) {
  JoinAll(2);
  Say("n1", CacheOf("n1", 1, Hashes(7, 20), true));
  active_["n1"] = {{{9, 9}, 0}};
  Report busy = SpeedOf("n1", 100);
  busy.prefill_tokens = 2000;  // 200 ms, of another scheduler; the prefix saves 32 ms
  Say("n1", busy);
  EXPECT_EQ(ReplicaOf(Prompt(1, 7)), "n0-r");
}

TEST_F(RouterPlacementTest, FasterReplicaIsChosenForALongPrompt) {
  JoinAll(2);
  Say("n1", SpeedOf("n1", 50));
  EXPECT_EQ(ReplicaOf(Prompt(1, 7)), "n1-r");
}

TEST_F(RouterPlacementTest, WhatIsPlacedAndNotYetReportedCountsAsQueue) {
  JoinAll(2);
  EXPECT_EQ(ReplicaOf(Prompt(1, 7)), "n0-r");
  Place other = Prompt(2, 8);
  other.max_tokens = 1;
  EXPECT_EQ(ReplicaOf(other), "n1-r");
}

TEST_F(RouterPlacementTest, WhereAllHavePromptsForLongTheLineIsHere) {
  JoinAll(1);
  options_.replica_queue_us = 250'000;
  for (uint64_t id = 1; id <= 4; ++id) EXPECT_EQ(ReplicaOf(Prompt(id, id)), "n0-r") << id;
  EXPECT_THAT(Say("g", Prompt(5, 5)), IsEmpty()) << "320 ms of prompts are there";
  active_["n0"] = {{{0, 1}, 0}, {{0, 2}, 0}, {{0, 3}, 0}, {{0, 4}, 0}};
  Report report = SpeedOf("n0", 100);
  report.prefill_tokens = 1000;
  EXPECT_THAT(Say("n0", report), ElementsAre("g <- ticket 5.0 n0-r@1"));
}

TEST_F(RouterPlacementTest, FullKvCacheHoldsPromptsBack) {
  Say("g", GatewayHello("g"));
  Hello hello = NodeHello("n0");
  hello.replicas[0].kv_tokens = 1000;
  Say("n0", hello);
  active_["n0"] = {{{9, 9}, 0}};
  Report report = SpeedOf("n0", 1);
  report.kv_blocks_total = 100;
  report.kv_blocks_used = 50;
  Say("n0", report);
  EXPECT_THAT(Say("g", Prompt(1, 1)), IsEmpty()) << "800 tokens, 500 are free";
  EXPECT_EQ(ReplicaOf(Prompt(2, 2, 10)), "n0-r") << "a small one behind it may pass";
  report = SpeedOf("n0", 1);
  report.kv_blocks_total = 100;
  EXPECT_THAT(Say("n0", report), ElementsAre("g <- ticket 1.0 n0-r@1"));
}

TEST_F(RouterPlacementTest, GapInCacheEventsAsksForASnapshotOnceASecond) {
  JoinAll(2);
  Say("n1", CacheOf("n1", 1, Hashes(7, 10), true));
  EXPECT_THAT(Say("n1", CacheOf("n1", 3, Hashes(8, 10))), ElementsAre("n1 <- unknown"));
  EXPECT_THAT(Say("n1", CacheOf("n1", 4, Hashes(9, 10))), IsEmpty());
  EXPECT_EQ(router_->counts().cache_gaps, 1U);
  Say("n1", CacheOf("n1", 5, Hashes(8, 10), true));
  Say("n1", CacheOf("n1", 6, Hashes(9, 10)));
  EXPECT_EQ(router_->counts().prefix_blocks, 20U) << "the snapshot replaced what was known";
}

TEST_F(RouterPlacementTest, CacheEventsWithoutASnapshotAskForOne) {
  JoinAll(1);
  EXPECT_THAT(Say("n0", CacheOf("n0", 5, Hashes(8, 10))), ElementsAre("n0 <- unknown"));
}

TEST_F(RouterPlacementTest, CopiesOfCacheEventsChangeNothing) {
  JoinAll(1);
  Say("n0", CacheOf("n0", 1, Hashes(7, 10), true));
  Say("n0", CacheOf("n0", 2, Hashes(8, 10)));
  EXPECT_THAT(Say("n0", CacheOf("n0", 1, Hashes(7, 10), true)), IsEmpty());
  EXPECT_EQ(router_->counts().prefix_blocks, 20U);
}

TEST_F(RouterPlacementTest, CachedPrefixesGoWithTheirReplica) {
  JoinAll(2);
  Say("n1", CacheOf("n1", 1, Hashes(7, 10), true));
  Say("n1", Goodbye{"stop"});
  EXPECT_EQ(router_->counts().prefix_blocks, 0U);
  Say("n1", NodeHello("n1", 2));
  Say("n1", ReportOf("n1", 2));
  EXPECT_THAT(Say("n1", CacheOf("n1", 2, Hashes(7, 10))), IsEmpty()) << "of an old epoch";
}

TEST_F(RouterPlacementTest, RoundRobinTakesTurns) {
  Make({.policy = PlacementPolicy::kRoundRobin});
  JoinAll(3);
  std::vector<std::string> replicas;
  for (uint64_t id = 1; id <= 5; ++id) replicas.push_back(ReplicaOf(Prompt(id, 1)));
  EXPECT_THAT(replicas, ElementsAre("n0-r", "n1-r", "n2-r", "n0-r", "n1-r"));
}

TEST_F(RouterPlacementTest, LeastLoadedIgnoresPrefixes) {
  Make({.policy = PlacementPolicy::kLeastLoaded});
  JoinAll(2);
  Say("n0", CacheOf("n0", 1, Hashes(7, 50), true));
  EXPECT_EQ(ReplicaOf(Prompt(1, 7)), "n0-r");
  EXPECT_EQ(ReplicaOf(Prompt(2, 7)), "n1-r");
}

TEST_F(RouterPlacementTest, StickyKeepsOneBeginningOnOneReplicaUntilThatIsOverloaded) {
  Make({.policy = PlacementPolicy::kSticky});
  JoinAll(4);
  std::map<std::string, int> counts;
  for (uint64_t chain = 1; chain <= 40; ++chain) {
    const std::string first = ReplicaOf(Prompt(2 * chain, chain, 3));
    Say("g", ReleaseOf(2 * chain));
    EXPECT_EQ(ReplicaOf(Prompt(2 * chain + 1, chain, 9)), first);
    Say("g", ReleaseOf(2 * chain + 1));
    ++counts[first];
  }
  EXPECT_EQ(counts.size(), 4U) << "beginnings are spread";
  const std::string first = ReplicaOf(Prompt(100, 1, 50));
  const std::string second = ReplicaOf(Prompt(101, 1, 50));
  EXPECT_NE(second, first) << "1.25 times the mean is the most";
}

TEST_F(RouterPlacementTest, AvoidedReplicasAreNotTakenWhileTheModelHasAnother) {
  JoinAll(2);
  Place place = Prompt(1, 1);
  place.avoid = {"n0-r"};
  EXPECT_EQ(ReplicaOf(place), "n1-r");
  place = Prompt(2, 2);
  place.avoid = {"n0-r", "n1-r"};
  EXPECT_THAT(ReplicaOf(place), AnyOf("n0-r", "n1-r")) << "there is no other";
  Report draining = SpeedOf("n1", 100);
  draining.draining = true;
  Say("n1", draining);
  place = Prompt(3, 3);
  place.avoid = {"n0-r"};
  EXPECT_THAT(Say("g", place), IsEmpty()) << "another one is there, though not ready";
}

TEST_F(RouterPlacementTest, SuspectGetsAReplicaThatHoldsNothingElseAndNothingJoinsIt) {
  JoinAll(2);
  EXPECT_EQ(ReplicaOf(Prompt(1, 1)), "n0-r");
  Place suspect = Prompt(2, 2);
  suspect.alone = true;
  EXPECT_EQ(ReplicaOf(suspect), "n1-r");
  for (uint64_t id = 3; id <= 4; ++id) EXPECT_EQ(ReplicaOf(Prompt(id, id, 3)), "n0-r");
  Say("g", ReleaseOf(2));
  EXPECT_EQ(ReplicaOf(Prompt(9, 9)), "n1-r");
}

TEST_F(RouterPlacementTest, SuspectThatFindsNoEmptyReplicaReservesOne) {
  JoinAll(1);
  EXPECT_EQ(ReplicaOf(Prompt(1, 1, 2)), "n0-r");
  Place suspect = Prompt(2, 2, 2);
  suspect.alone = true;
  EXPECT_THAT(Say("g", suspect), IsEmpty());
  EXPECT_THAT(Say("g", Prompt(3, 3, 2)), IsEmpty()) << "it is to become empty";
  EXPECT_THAT(Say("g", ReleaseOf(1)), ElementsAre("g <- ticket 2.0 n0-r@1"));
  EXPECT_THAT(Say("g", ReleaseOf(2)), ElementsAre("g <- ticket 3.0 n0-r@1"));
}

TEST_F(RouterPlacementTest, ReservationEndsWithTheSuspectThatWaits) {
  JoinAll(1);
  EXPECT_EQ(ReplicaOf(Prompt(1, 1, 2)), "n0-r");
  Place suspect = Prompt(2, 2, 2);
  suspect.alone = true;
  Say("g", suspect);
  Say("g", Prompt(3, 3, 2));
  Say("g", ReleaseOf(2));
  EXPECT_THAT(Pass(100 * kMs), ElementsAre("g <- ticket 3.0 n0-r@1"));
}

TEST_F(RouterPlacementTest, RepeatByAnotherGatewayKeepsTheReplicaThatComputes) {
  JoinAll(2);
  Say("h", GatewayHello("h"));
  Say("n1", CacheOf("n1", 1, Hashes(7, 40), true));
  EXPECT_EQ(ReplicaOf(Prompt(1, 7)), "n1-r");
  Place repeat = Prompt(1, 7);
  repeat.attempt = 5'000'000;
  EXPECT_THAT(Say("h", repeat), ElementsAre("h <- ticket 1.5000000 n1-r@1"));
  active_["n1"] = {{{0, 1}, 0}};
  Say("n1", SpeedOf("n1", 100));
  Say("h", Goodbye{"stop"});
  Say("n1", SpeedOf("n1", 100));
  repeat.attempt = 6'000'000;
  EXPECT_THAT(Say("g", repeat), ElementsAre("g <- ticket 1.6000000 n1-r@1")) << "left over there";
}

TEST_F(RouterPlacementTest, SlowReplicaIsAvoidedThenEjectedThenProbed) {
  JoinAll(3);
  const auto pass = [&](int64_t time_us, double n0_token_us) {
    for (const int64_t end = now_us_ + time_us; now_us_ < end;) {
      now_us_ += 100 * kMs;
      Say("g", Heartbeat{});
      Say("n0", SpeedOf("n0", n0_token_us));
      Say("n1", SpeedOf("n1", 100));
      Say("n2", SpeedOf("n2", 100));
      (void)router_->OnTick(now_us_);
    }
  };
  const auto health = [&] { return router_->replicas().all().at("n0-r").health.state; };
  pass(kSecond, 1000);
  EXPECT_EQ(health(), HealthState::kAvoided);
  EXPECT_EQ(ReplicaOf(Prompt(1, 1, 1)), "n1-r");
  pass(options_.eject_after_us, 1000);
  EXPECT_EQ(health(), HealthState::kEjected);
  EXPECT_EQ(router_->counts().ejections, 1U);
  EXPECT_EQ(router_->TakeEvents().back().kind, RouteEvent::Kind::kReplicaEjected);
  pass(options_.eject_time_us, 100);
  EXPECT_EQ(health(), HealthState::kHealthy) << "probed, and as fast as the others";
}

TEST_F(RouterPlacementTest, OnlyReplicaIsUsedHoweverSlow) {
  JoinAll(1);
  for (int i = 0; i < 100; ++i) {
    now_us_ += 100 * kMs;
    Say("n0", SpeedOf("n0", 1e6));
  }
  EXPECT_EQ(ReplicaOf(Prompt(1, 1)), "n0-r");
}

TEST_F(RouterPlacementTest, RequestThatCannotMakeItsDeadlineIsRefusedBeforeItIsComputed) {
  JoinAll(1);
  Place place = Prompt(1, 1);  // 80 ms of prompt
  place.timeout_us = 50 * kMs;
  EXPECT_THAT(Say("g", place), ElementsAre("g <- refused 1.0 deadline_exceeded"));
  EXPECT_THAT(LastRefused().message, HasSubstr("first token would take"));
  place = Prompt(2, 2);
  place.timeout_us = 200 * kMs;
  EXPECT_EQ(ReplicaOf(place), "n0-r");
}

TEST_F(RouterPlacementTest, NonsenseInReportsIsCountedAndIgnored) {
  JoinAll(1);
  const auto nonsense = [&](auto change) {
    Report report = SpeedOf("n0", 100);
    report.draining = true;
    change(report);
    Say("n0", report);
  };
  nonsense([](Report& r) { r.running = 1000; });
  nonsense([](Report& r) { r.step_us = -1; });
  nonsense([](Report& r) { r.kv_blocks_used = 1; });
  nonsense([](Report& r) { r.prefill_token_us = std::nan(""); });
  nonsense([](Report& r) { r.prefill_token_us = -5; });
  nonsense([](Report& r) { r.schedulers = 1'000'000; });
  EXPECT_EQ(router_->counts().nonsense_reports, 6U);
  EXPECT_EQ(router_->ReplicasReady("m"), 1U) << "it drains in none of them";
  int told = 0;
  for (const RouteEvent& event : router_->TakeEvents())
    told += event.kind == RouteEvent::Kind::kNonsense ? 1 : 0;
  EXPECT_EQ(told, 1) << "until it makes sense again";
}

TEST_F(RouterPlacementTest, DrainIsHandedOnToTheOneThatIsCalledSo) {
  JoinAll(1);
  Hello hello;
  hello.role = Role::kOperator;
  hello.name = "muselet drain";
  Say("o", hello);
  EXPECT_THAT(Say("o", Drain{"n0"}), ElementsAre("n0 <- drain", "o <- drain_answer"));
  EXPECT_TRUE(std::get<DrainAnswer>(last_.back().message).known);
  EXPECT_THAT(Say("o", Drain{"g"}), ElementsAre("g <- drain", "o <- drain_answer"));
  EXPECT_THAT(Say("o", Drain{"nobody"}), ElementsAre("o <- drain_answer"));
  const auto& answer = std::get<DrainAnswer>(last_.back().message);
  EXPECT_FALSE(answer.known);
  EXPECT_THAT(answer.detail, AnyOf("g, n0", "n0, g"));
  EXPECT_EQ(router_->counts().gateways, 1U) << "an operator is none";
}

TEST_F(RouterPlacementTest, OnlyAnOperatorMayDrain) {
  JoinAll(1);
  EXPECT_THAT(Say("g", Drain{"n0"}), IsEmpty());
}

}  // namespace
}  // namespace muselet
