#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/scheduler/route/router_fixture.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST_F(RouterTest, WelcomesAndTellsGatewaysTheModels) {
  show_noise_ = true;
  EXPECT_THAT(Say("g", GatewayHello("g")),
              ElementsAre("g <- model_table m=0 other=0", "g <- welcome"));
  EXPECT_THAT(Say("n0", NodeHello("n0")), ElementsAre("n0 <- welcome"));
  EXPECT_THAT(Say("n0", ReportOf("n0")), ElementsAre("g <- model_table m=1 other=0"));
  EXPECT_EQ(router_->ReplicasReady("m"), 1U);
}

TEST_F(RouterTest, StrangersAreToldSo) {
  EXPECT_THAT(Say("g", PlaceOf(1)), ElementsAre("g <- unknown"));
  EXPECT_THAT(Say("n", ReportOf("n")), ElementsAre("n <- unknown"));
  EXPECT_THAT(Say("x", Unknown{}), IsEmpty());
}

TEST_F(RouterTest, GivesATicketAtOnceWhenAReplicaIsFree) {
  Join();
  EXPECT_THAT(Say("g", PlaceOf(1)), ElementsAre("g <- ticket 1.0 n0-r@1"));
  EXPECT_EQ(std::get<Ticket>(last_.back().message).endpoint, "tcp://n0");
  EXPECT_EQ(router_->counts().placed, 1U);
}

TEST_F(RouterTest, AnnouncedButSilentReplicaIsNotReady) {
  Say("g", GatewayHello("g"));
  Say("n0", NodeHello("n0"));
  EXPECT_THAT(Say("g", PlaceOf(1)), IsEmpty());
  EXPECT_THAT(Say("n0", ReportOf("n0")), ElementsAre("g <- ticket 1.0 n0-r@1"));
}

TEST_F(RouterTest, CopyOfAPlaceGetsTheSameTicketAndNoSecondCredit) {
  Join();
  Say("g", PlaceOf(1));
  EXPECT_THAT(Say("g", PlaceOf(1)), ElementsAre("g <- ticket 1.0 n0-r@1"));
  EXPECT_EQ(router_->replicas().all().at("n0-r").ticket_sequences, 1U);
  EXPECT_EQ(router_->counts().tickets, 1U);
}

TEST_F(RouterTest, CreditsBoundWhatAReplicaHoldsAndReleaseFreesThem) {
  Join();
  for (uint64_t id = 1; id <= 5; ++id) EXPECT_EQ(Say("g", PlaceOf(id)).size(), 1U) << id;
  EXPECT_THAT(Say("g", PlaceOf(6)), IsEmpty());
  EXPECT_THAT(Say("g", ReleaseOf(2)), ElementsAre("g <- ticket 6.0 n0-r@1"));
  EXPECT_THAT(Say("g", ReleaseOf(2)), IsEmpty());
}

TEST_F(RouterTest, RequestWithMoreChoicesThanSlotsGetsAnIdleReplica) {
  Join();
  Place wide = PlaceOf(1);
  wide.choices = 20;
  EXPECT_THAT(Say("g", wide), ElementsAre("g <- ticket 1.0 n0-r@1"));
  EXPECT_THAT(Say("g", PlaceOf(2)), IsEmpty());
  EXPECT_THAT(Say("g", ReleaseOf(1)), ElementsAre("g <- ticket 2.0 n0-r@1"));
}

TEST_F(RouterTest, LineIsServedByClassThenByArrival) {
  Say("g", GatewayHello("g"));
  const auto place = [&](uint64_t id, RequestClass request_class) {
    Place place = PlaceOf(id);
    place.request_class = request_class;
    EXPECT_THAT(Say("g", place), IsEmpty());
  };
  place(1, RequestClass::kBatch);
  place(2, RequestClass::kInteractive);
  place(3, RequestClass::kRealtime);
  place(4, RequestClass::kInteractive);
  place(5, RequestClass::kRealtime);
  Say("n0", NodeHello("n0"));
  EXPECT_THAT(
      Say("n0", ReportOf("n0")),
      ElementsAre("g <- ticket 3.0 n0-r@1", "g <- ticket 5.0 n0-r@1", "g <- ticket 2.0 n0-r@1",
                  "g <- ticket 4.0 n0-r@1", "g <- ticket 1.0 n0-r@1"));
}

TEST_F(RouterTest, TheLeastLoadedReplicaIsChosenAndTiesGoByName) {
  Join("n1");
  Say("n0", NodeHello("n0"));
  Say("n0", ReportOf("n0"));
  Place big = PlaceOf(1);
  big.max_tokens = 500;
  EXPECT_THAT(Say("g", big), ElementsAre("g <- ticket 1.0 n0-r@1"));
  EXPECT_THAT(Say("g", PlaceOf(2)), ElementsAre("g <- ticket 2.0 n1-r@1"));
  EXPECT_THAT(Say("g", PlaceOf(3)), ElementsAre("g <- ticket 3.0 n1-r@1"));
}

TEST_F(RouterTest, ALaterAttemptAvoidsTheReplicaThatTheGatewayGaveUp) {
  Join("n1");
  Say("n0", NodeHello("n0"));
  Say("n0", ReportOf("n0"));
  EXPECT_THAT(Say("g", PlaceOf(1, 0)), ElementsAre("g <- ticket 1.0 n0-r@1"));
  EXPECT_THAT(Say("g", PlaceOf(1, 1)), ElementsAre("g <- ticket 1.1 n1-r@1"));
  EXPECT_THAT(Say("g", PlaceOf(1, 2)), ElementsAre("g <- ticket 1.2 n0-r@1"));
}

TEST_F(RouterTest, ALaterAttemptAvoidsTheReplicaThatWasReleased) {
  Join("n1");
  Say("n0", NodeHello("n0"));
  Say("n0", ReportOf("n0"));
  EXPECT_THAT(Say("g", PlaceOf(1, 0)), ElementsAre("g <- ticket 1.0 n0-r@1"));
  Say("g", Release{{0, 1}, 0});
  EXPECT_THAT(Say("g", PlaceOf(1, 1)), ElementsAre("g <- ticket 1.1 n1-r@1"));
}

TEST_F(RouterTest, ALaterAttemptGoesBackToTheOnlyReplica) {
  Join("n0");
  EXPECT_THAT(Say("g", PlaceOf(1, 0)), ElementsAre("g <- ticket 1.0 n0-r@1"));
  EXPECT_THAT(Say("g", PlaceOf(1, 1)), ElementsAre("g <- ticket 1.1 n0-r@1"));
}

TEST_F(RouterTest, UnknownModelIsRefusedNamingTheKnownOnes) {
  Join();
  Place place = PlaceOf(1);
  place.model = "nonsense";
  EXPECT_THAT(Say("g", place), ElementsAre("g <- refused 1.0 not_found"));
  EXPECT_THAT(std::get<Refused>(last_.back().message).message, HasSubstr("m, other"));
}

TEST_F(RouterTest, ModelThatOnlyANodeAnnouncesIsServed) {
  Say("g", GatewayHello("g"));
  Say("n0", NodeHello("n0", 1, "added-later"));
  Say("n0", ReportOf("n0"));
  Place place = PlaceOf(1);
  place.model = "added-later";
  EXPECT_THAT(Say("g", place), ElementsAre("g <- ticket 1.0 n0-r@1"));
}

TEST_F(RouterTest, PromptThatNoReplicaTakesIsRefused) {
  Join();
  Place place = PlaceOf(1);
  place.prompt_tokens = 1000;
  EXPECT_THAT(Say("g", place), ElementsAre("g <- refused 1.0 invalid_argument"));
}

TEST_F(RouterTest, WaitingPromptThatFitsNowhereDoesNotBlockTheLine) {
  Say("g", GatewayHello("g"));
  Place place = PlaceOf(1);
  place.prompt_tokens = 1000;
  Say("g", place);
  Say("g", PlaceOf(2));
  Say("n0", NodeHello("n0"));
  EXPECT_THAT(Say("n0", ReportOf("n0")),
              ElementsAre("g <- refused 1.0 invalid_argument", "g <- ticket 2.0 n0-r@1"));
}

TEST_F(RouterTest, FullLineIsAnAnswerWithATimeToRetry) {
  Say("g", GatewayHello("g"));
  for (uint64_t id = 1; id <= 10; ++id) EXPECT_THAT(Say("g", PlaceOf(id)), IsEmpty());
  EXPECT_THAT(Say("g", PlaceOf(11)), ElementsAre("g <- refused 11.0 resource_exhausted"));
  EXPECT_EQ(std::get<Refused>(last_.back().message).retry_after_us, options_.retry_after_us);
  EXPECT_THAT(Say("g", PlaceOf(3)), IsEmpty()) << "one that waits already is not refused";
}

TEST_F(RouterTest, ModelWithoutAReplicaIsWaitedForUntilThePlaceTimeout) {
  Say("g", GatewayHello("g"));
  Say("g", PlaceOf(1));
  EXPECT_THAT(Pass(options_.place_timeout_us - 100 * kMs, {}), IsEmpty());
  EXPECT_THAT(Pass(200 * kMs, {}), ElementsAre("g <- refused 1.0 unavailable"));
  EXPECT_EQ(router_->counts().waiting, 0U);
}

TEST_F(RouterTest, BusyReplicaIsWaitedForWithoutAPlaceTimeout) {
  Join();
  for (uint64_t id = 1; id <= 6; ++id) Say("g", PlaceOf(id));
  for (uint64_t id = 1; id <= 5; ++id) active_["n0"].push_back({{0, id}, 0});
  EXPECT_THAT(Pass(2 * options_.place_timeout_us), IsEmpty());
  EXPECT_EQ(router_->counts().waiting, 1U);
}

TEST_F(RouterTest, DeadlineEndsTheWait) {
  Say("g", GatewayHello("g"));
  Place place = PlaceOf(1);
  place.timeout_us = kSecond;
  Say("g", place);
  EXPECT_THAT(Pass(900 * kMs, {}), IsEmpty());
  EXPECT_THAT(Pass(200 * kMs, {}), ElementsAre("g <- refused 1.0 deadline_exceeded"));
}

TEST_F(RouterTest, CopyOfARefusedPlaceGetsTheSameAnswer) {
  Say("g", GatewayHello("g"));
  Place place = PlaceOf(1);
  place.timeout_us = kSecond;
  Say("g", place);
  Pass(2 * kSecond, {});
  Join();
  EXPECT_THAT(Say("g", place), ElementsAre("g <- refused 1.0 deadline_exceeded"));
}

TEST_F(RouterTest, SuspectBehindAnotherInTheLineGetsTheReplicaThatIsKeptFreeForIt) {
  Join();
  for (uint64_t id = 1; id <= 3; ++id) Say("g", PlaceOf(id));
  Place wide = PlaceOf(6);
  wide.choices = 4;
  EXPECT_THAT(Say("g", wide), IsEmpty());
  Place suspect = PlaceOf(7);
  suspect.alone = true;
  EXPECT_THAT(Say("g", suspect), IsEmpty());
  for (uint64_t id = 1; id <= 2; ++id) EXPECT_THAT(Say("g", ReleaseOf(id)), IsEmpty());
  EXPECT_THAT(Say("g", ReleaseOf(3)), ElementsAre("g <- ticket 7.0 n0-r@1"));
  EXPECT_THAT(Say("g", ReleaseOf(7)), ElementsAre("g <- ticket 6.0 n0-r@1"));
}

TEST_F(RouterTest, TicketThatNoReportKnowsIsLostAlsoIfItsGatewayAsksAgain) {
  Join();
  EXPECT_THAT(Say("g", PlaceOf(1)), ElementsAre("g <- ticket 1.0 n0-r@1"));
  EXPECT_THAT(Pass(options_.ticket_lease_us / 2), IsEmpty());
  EXPECT_THAT(Say("g", PlaceOf(1)), ElementsAre("g <- ticket 1.0 n0-r@1"));
  EXPECT_THAT(Pass(options_.ticket_lease_us / 2 + 100 * kMs), ElementsAre("g <- lost 1.0"));
  EXPECT_THAT(Say("g", PlaceOf(1)), ElementsAre("g <- lost 1.0"));
  EXPECT_THAT(Say("g", PlaceOf(1, 1)), ElementsAre("g <- ticket 1.1 n0-r@1"));
}

TEST_F(RouterTest, ReleaseOfAWaitingRequestTakesItOutOfTheLine) {
  Say("g", GatewayHello("g"));
  Say("g", PlaceOf(1));
  Say("g", ReleaseOf(1));
  Say("n0", NodeHello("n0"));
  EXPECT_THAT(Say("n0", ReportOf("n0")), IsEmpty());
}

TEST_F(RouterTest, ReleaseThatOvertakesItsPlaceStillCounts) {
  Join();
  Say("g", ReleaseOf(1));
  EXPECT_THAT(Say("g", PlaceOf(1)), IsEmpty());
  EXPECT_THAT(Say("g", PlaceOf(1, 1)), ElementsAre("g <- ticket 1.1 n0-r@1"));
}

TEST_F(RouterTest, NodeThatSaysGoodbyeLosesItsTickets) {
  Join();
  Say("g", PlaceOf(1));
  EXPECT_THAT(Say("n0", Goodbye{"stop"}), ElementsAre("g <- lost 1.0"));
  EXPECT_EQ(router_->counts().losses, 1U);
  EXPECT_EQ(router_->counts().nodes, 0U);
  EXPECT_EQ(router_->counts().peers_left, 1U);
}

TEST_F(RouterTest, NodeThatFallsSilentLosesItsTicketsAndTheNextAttemptGoesElsewhere) {
  Join();
  Say("g", PlaceOf(1));
  Say("n1", NodeHello("n1"));
  Say("n1", ReportOf("n1"));
  EXPECT_THAT(Pass(options_.peer_timeout_us, {"n1"}), IsEmpty());
  EXPECT_THAT(Pass(100 * kMs, {"n1"}), ElementsAre("g <- lost 1.0"));
  EXPECT_THAT(Say("g", PlaceOf(1)), ElementsAre("g <- lost 1.0")) << "a late copy";
  EXPECT_THAT(Say("g", PlaceOf(1, 1)), ElementsAre("g <- ticket 1.1 n1-r@1"));
}

TEST_F(RouterTest, NodeThatLivesButDoesNotReportIsHungAndLosesItsTickets) {
  Join();
  Say("g", PlaceOf(1));
  std::vector<std::string> said;
  for (int i = 0; i < 80; ++i) {
    now_us_ += 50 * kMs;
    Say("g", Heartbeat{});
    Say("n0", Heartbeat{});
    Append(said, Texts(router_->OnTick(now_us_)));
  }
  EXPECT_THAT(said, ElementsAre("g <- lost 1.0"));
  EXPECT_EQ(router_->ReplicasReady("m"), 0U);
  Say("n0", ReportOf("n0"));
  EXPECT_EQ(router_->ReplicasReady("m"), 1U);
}

TEST_F(RouterTest, NewInstanceOfANodeLosesTheOldOnesTickets) {
  Join();
  Say("g", PlaceOf(1));
  EXPECT_THAT(Say("n0#2", NodeHello("n0"), 2), ElementsAre("g <- lost 1.0", "n0#2 <- welcome"));
}

TEST_F(RouterTest, NewEpochOfAReplicaLosesTheOldOnesTickets) {
  Join();
  Say("g", PlaceOf(1));
  EXPECT_THAT(Say("n0", NodeHello("n0", 2)), ElementsAre("g <- lost 1.0", "n0 <- welcome"));
  EXPECT_THAT(Say("g", PlaceOf(1, 1)), IsEmpty()) << "the new epoch has not reported";
  EXPECT_THAT(Say("n0", ReportOf("n0", 1)), IsEmpty()) << "a report of the old epoch";
  EXPECT_THAT(Say("n0", ReportOf("n0", 2)), ElementsAre("g <- ticket 1.1 n0-r@2"));
}

TEST_F(RouterTest, ReportOfAnUnannouncedEpochAsksForHello) {
  Join();
  EXPECT_THAT(Say("n0", ReportOf("n0", 2)), ElementsAre("n0 <- unknown"));
}

TEST_F(RouterTest, OldReportsAreIgnored) {
  Join();
  Report late = ReportOf("n0");
  Report newer = ReportOf("n0");
  newer.draining = true;
  Say("n0", newer);
  Say("n0", late);
  EXPECT_EQ(router_->ReplicasReady("m"), 0U);
}

TEST_F(RouterTest, DrainingReplicaKeepsItsTicketsAndGetsNoMore) {
  Join();
  Say("g", PlaceOf(1));
  Report report = ReportOf("n0");
  report.draining = true;
  EXPECT_THAT(Say("n0", report), IsEmpty());
  EXPECT_THAT(Say("g", PlaceOf(2)), IsEmpty());
  EXPECT_EQ(router_->counts().placed, 1U);
}

TEST_F(RouterTest, GatewayThatGoesAwayFreesItsTicketsAndItsPlaceInTheLine) {
  Join();
  Say("h", GatewayHello("h"));
  for (uint64_t id = 1; id <= 7; ++id) Say("h", PlaceOf(id));
  Say("g", PlaceOf(10));
  EXPECT_THAT(Say("h", Goodbye{"stop"}), ElementsAre("g <- ticket 10.0 n0-r@1"));
  EXPECT_EQ(router_->counts().placed, 1U);
  EXPECT_EQ(router_->counts().waiting, 0U);
}

TEST_F(RouterTest, TicketThatNobodyUsesIsTakenBack) {
  Join();
  for (uint64_t id = 1; id <= 6; ++id) Say("g", PlaceOf(id));
  active_["n0"] = {{{0, 1}, 0}};
  const auto said = Pass(options_.ticket_lease_us + 200 * kMs);
  EXPECT_THAT(said, UnorderedElementsAre("g <- lost 2.0", "g <- lost 3.0", "g <- lost 4.0",
                                         "g <- lost 5.0", "g <- ticket 6.0 n0-r@1"));
  EXPECT_EQ(router_->counts().placed, 2U) << "the one that runs, and the one that waited";
}

TEST_F(RouterTest, RestartedSchedulerCountsWhatRunsAndAttachesItAgain) {
  active_["n0"] = {{{0, 1}, 0}, {{0, 2}, 0}, {{0, 2}, 1}, {{0, 3}, 0}, {{0, 4}, 0}};
  Join();
  EXPECT_THAT(Say("g", PlaceOf(9)), IsEmpty()) << "the replica is full";
  EXPECT_THAT(Say("g", PlaceOf(3, 2)), ElementsAre("g <- ticket 3.2 n0-r@1"));
  EXPECT_EQ(router_->replicas().all().at("n0-r").foreign_sequences, 4U);
  active_["n0"].pop_back();
  EXPECT_THAT(Say("n0", ReportOf("n0")), ElementsAre("g <- ticket 9.0 n0-r@1"));
}

TEST_F(RouterTest, RunningRequestThatIsAskedForBeforeItsNodeReportsIsAttachedThen) {
  Say("g", GatewayHello("g"));
  Say("n0", NodeHello("n0"));
  Say("n1", NodeHello("n1"));
  Say("n0", ReportOf("n0"));
  EXPECT_THAT(Say("g", PlaceOf(1)), ElementsAre("g <- ticket 1.0 n0-r@1"));
  active_["n1"] = {{{0, 1}, 0}};
  EXPECT_THAT(Say("n1", ReportOf("n1")), ElementsAre("g <- ticket 1.0 n1-r@1"));
  EXPECT_EQ(router_->replicas().all().at("n0-r").ticket_sequences, 0U);
}

TEST_F(RouterTest, NewAttemptIsNotDrawnBackToWhereTheOldOneStillRuns) {
  Join();
  Say("g", PlaceOf(1));
  active_["n0"] = {{{0, 1}, 0}};
  Report draining = ReportOf("n0");
  draining.draining = true;
  Say("n0", draining);
  EXPECT_THAT(Say("g", PlaceOf(1, 1)), IsEmpty());
  draining.sequence = ++report_sequence_;
  EXPECT_THAT(Say("n0", draining), IsEmpty());
}

TEST_F(RouterTest, OldAttemptIsIgnoredAfterANewOne) {
  Join();
  Say("g", PlaceOf(1, 1));
  EXPECT_THAT(Say("g", PlaceOf(1, 0)), IsEmpty());
  EXPECT_THAT(Say("g", ReleaseOf(1, 0)), IsEmpty());
  EXPECT_EQ(router_->counts().placed, 1U);
}

TEST_F(RouterTest, UnreachablePeerIsLost) {
  Join();
  Say("g", PlaceOf(1));
  EXPECT_THAT(Texts(router_->OnUnreachable("n0", now_us_)), ElementsAre("g <- lost 1.0"));
  EXPECT_EQ(router_->TakeEvents().back().kind, RouteEvent::Kind::kReplicaLost);
}

TEST_F(RouterTest, NodesThatClaimOneReplicaDoNotTakeItFromEachOther) {
  Join();
  Hello thief = NodeHello("n1");
  thief.replicas = NodeHello("n0").replicas;
  thief.replicas[0].endpoint = "tcp://thief";
  Say("n1", thief);
  Say("g", PlaceOf(1));
  EXPECT_EQ(std::get<Ticket>(last_.back().message).endpoint, "tcp://n0");
}

TEST_F(RouterTest, EventsSayWhatHappened) {
  Join();
  Say("g", PlaceOf(1));
  Say("n0", Goodbye{"stop"});
  using enum RouteEvent::Kind;
  std::vector<RouteEvent::Kind> kinds;
  for (const RouteEvent& event : router_->TakeEvents()) kinds.push_back(event.kind);
  EXPECT_THAT(kinds, UnorderedElementsAre(kGatewayJoined, kNodeJoined, kReplicaReady, kNodeLeft,
                                          kReplicaLeft));
  EXPECT_THAT(router_->TakeQueueTimesUs(), ElementsAre(0));
}

}  // namespace
}  // namespace muselet
