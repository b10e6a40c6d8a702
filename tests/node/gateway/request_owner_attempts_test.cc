// What follows a lost or failed attempt: faults, budgets, joins, audits.
#include "node/gateway/request_owner.h"
#include "tests/node/gateway/request_owner_fixture.h"

namespace muselet {
namespace {

using testing::kMs;
using testing::Record;
using testing::RequestOwnerTest;

// What the last Place of `out` asked for: "-r0,r1 alone".
std::string Asked(const OwnerOutput& out) {
  for (auto to = out.to_schedulers.rbegin(); to != out.to_schedulers.rend(); ++to) {
    const auto* place = std::get_if<Place>(&to->message);
    if (place == nullptr) continue;
    std::string text = "-";
    for (const std::string& replica : place->avoid) text += replica + ",";
    return text + (place->alone ? " alone" : "");
  }
  return "nothing";
}

TEST_F(RequestOwnerTest, AFaultOfAReplicaIsTriedOnceElsewhereAloneAndASecondIsPoison) {
  Start(Record(1));
  Give(1, 0, "n0");
  Say("n0", 1, 0, 0, {7});
  OwnerOutput out = owner_->Step(FromNode{"n0", Fault(1, 0, StatusCode::kInternal)}, now_us_);
  EXPECT_EQ(Asked(out), "-r, alone");
  Give(1, 1, "n1");
  Say("n1", 1, 1, 1, {8});
  out = owner_->Step(FromNode{"n1", Fault(1, 1, StatusCode::kInternal)}, now_us_);
  const auto& ended = std::get<Ended>(out.events.back());
  EXPECT_EQ(ended.status.code(), StatusCode::kInternal);
  EXPECT_EQ(ended.code, "poisoned_request");
  EXPECT_EQ(ended.status.message(),
            "replicas failed by this request 2 times; it is not tried again. The last one said: "
            "no");
  EXPECT_EQ(owner_->counters().poisoned, 1U);
}

TEST_F(RequestOwnerTest, ASuspectCountsAsAFaultAndALossDoesNot) {
  Start(Record(1, 1, 100));
  for (uint32_t attempt = 0; attempt < 20; ++attempt) {
    Give(1, attempt, "n0");
    Say("n0", 1, attempt, attempt, {7});
    const auto out =
        owner_->Step(FromScheduler{0, Lost{{1, 1}, attempt, "killed", attempt == 10}}, now_us_);
    EXPECT_EQ(Asked(out), attempt < 10 ? "-" : "-r, alone") << attempt;
  }
  Give(1, 20, "n0");
  EXPECT_EQ(Do(FromScheduler{0, Lost{{1, 1}, 20, "its process died", true}}),
            "s0<release 20; n0<cancel 0@20; ended internal");
}

TEST_F(RequestOwnerTest, WhereNoOtherReplicaIsLeftTheOneThatFailedIsAskedAgain) {
  Start(Record(1));
  Give(1, 0, "n0");
  Say("n0", 1, 0, 0, {7});
  Do(FromNode{"n0", Fault(1, 0, StatusCode::kInternal)});
  Do(FromScheduler{0, Refused{{1, 1}, 1, StatusCode::kUnavailable, "none", 0, {}}});
  now_us_ += options_.place_repeat_us;
  EXPECT_EQ(Asked(owner_->Step(OwnerTick{}, now_us_)), "- alone");
}

TEST_F(RequestOwnerTest, TheRetryBudgetBoundsAttemptsThatGetNowhereOnly) {
  options_.limits.retry_reserve = 1;
  options_.limits.retry_share = 0;
  Make(1);
  for (uint64_t id = 1; id <= 3; ++id) {
    Start(Record(id));
    Give(id, 0, "n0");
  }
  Say("n0", 3, 0, 0, {7});
  const OwnerOutput out = owner_->Step(NodeLost{"n0", "silent"}, now_us_);
  size_t ended = 0;
  for (const OwnerEvent& event : out.events) {
    const auto* end = std::get_if<Ended>(&event);
    if (end == nullptr) continue;
    ++ended;
    EXPECT_NE(end->request, (RequestId{3, 3}));
    EXPECT_EQ(end->code, "retry_budget_exhausted");
    EXPECT_EQ(end->status.code(), StatusCode::kUnavailable);
    EXPECT_GT(end->retry_after_us, 0);
  }
  EXPECT_EQ(ended, 1U);
  EXPECT_EQ(owner_->requests(), 2U);
}

TEST_F(RequestOwnerTest, ARequestThatMayRunIsJoinedByItsNameAndTriedAgainUnderItsOwn) {
  RequestRecord record = Record(1);
  record.join = {77, 78};
  record.join_attempt = 1000;
  OwnerOutput out = owner_->Step(StartRequest{record}, now_us_);
  EXPECT_EQ(std::get<Place>(out.to_schedulers.at(0).message).request, record.join);
  EXPECT_EQ(std::get<Place>(out.to_schedulers.at(0).message).attempt, 1000U);
  // A second one of the same name goes its own way.
  RequestRecord twin = Record(2);
  twin.join = record.join;
  EXPECT_EQ(Do(StartRequest{twin}), "s0<place 0");
  out = owner_->Step(FromScheduler{0, Ticket{record.join, 1000, "r", "n0", 1, {}}}, now_us_);
  EXPECT_EQ(std::get<Submit>(out.to_nodes.at(0).message).sequence.request, record.join);
  Tokens tokens = Update(0, 1000, 0, {7, 8}, FinishReason::kNone, 0);
  tokens.updates[0].sequence.request = record.join;
  out = owner_->Step(FromNode{"n0", tokens}, now_us_);
  EXPECT_EQ(std::get<Delivered>(out.events.at(0)).sequence.request, (RequestId{1, 1}));
  out = owner_->Step(NodeLost{"n0", "silent"}, now_us_);
  EXPECT_EQ(std::get<Release>(out.to_schedulers.at(0).message).request, record.join);
  EXPECT_EQ(std::get<Place>(out.to_schedulers.at(1).message).request, record.request);
  EXPECT_EQ(Give(1, 1001, "n1"), "n1<submit 0@1001+2");
  EXPECT_EQ(Do(CancelRequest{{1, 1}}), "s0<release 1001; n1<cancel 0@1001");
  // Asked once more, its attempts go on from there, whatever the clock says.
  record.request = {3, 3};
  record.join_attempt = 5;
  EXPECT_EQ(Do(StartRequest{record}), "s0<place 1001");
  EXPECT_EQ(owner_->counters().joins, 2U);
}

TEST_F(RequestOwnerTest, WhatRunsIsShownToAnotherSchedulerWhenItsOwnIsLost) {
  Make(2);
  Start(Record(2));
  Give(2, 0, "n0", 0);
  EXPECT_EQ(Do(SchedulerDown{0}), "s1<place 0");
  EXPECT_EQ(Give(2, 0, "n0", 1), "");  // found on its node
  EXPECT_EQ(Say("n0", 2, 0, 0, {7}), "tokens 0:7,");
  EXPECT_EQ(Do(FromScheduler{1, Lost{{2, 2}, 0, "hung", false}}),
            "s1<release 0; s1<place 1; n0<cancel 0@0");
}

TEST_F(RequestOwnerTest, TimeThatWentByBeforeTheStartCounts) {
  RequestRecord record = Record(1);
  record.timeout_us = 10 * kMs;
  record.waited_us = 8 * kMs;
  const OwnerOutput out = owner_->Step(StartRequest{record}, now_us_);
  EXPECT_EQ(std::get<Place>(out.to_schedulers.at(0).message).timeout_us, 2 * kMs);
  now_us_ += 2 * kMs;
  EXPECT_EQ(Do(OwnerTick{}), "s0<release 0; ended deadline_exceeded");
}

TEST_F(RequestOwnerTest, AuditsGoToAnotherReplicaOfTheSameNumericsOnly) {
  options_.audit_fraction = 1;
  Make(1);
  Start(Record(1));
  Ticket ticket{{1, 1}, 0, "r0", "n0", 1, {}};
  ticket.numerics_id = "cpu";
  Do(FromScheduler{0, ticket});
  const OwnerOutput out =
      owner_->Step(FromNode{"n0", Update(1, 0, 0, {7, 8}, FinishReason::kStop, 0)}, now_us_);
  const auto& audit = std::get<AuditCase>(out.events.at(out.events.size() - 2));
  EXPECT_EQ(audit.replica, "r0");
  EXPECT_EQ(audit.record.numerics_id, "cpu");
  EXPECT_EQ(audit.generated, (std::vector<std::vector<TokenId>>{{7, 8}}));
  RequestRecord again = audit.record;
  again.avoid = audit.replica;
  for (const char* numerics : {"gpu", "cpu"}) {
    again.request = {5, 5};
    EXPECT_EQ(Asked(owner_->Step(StartRequest{again}, now_us_)), "-r0,");
    ticket = {{5, 5}, 0, "r1", "n1", 1, {}};
    ticket.numerics_id = numerics;
    const std::string said = Do(FromScheduler{0, ticket});
    EXPECT_EQ(said, std::string(numerics) == "gpu" ? "s0<release 0; ended unavailable"
                                                   : "n1<submit 0@0+0");
  }
  // It is not tried again, and not audited.
  EXPECT_EQ(Do(NodeLost{"n1", "silent"}), "s0<release 0; n1<cancel 0@0; ended unavailable");
}

}  // namespace
}  // namespace muselet
