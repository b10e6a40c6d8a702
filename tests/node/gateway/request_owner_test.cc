#include "node/gateway/request_owner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>

namespace muselet {
namespace {

constexpr int64_t kMs = 1000;

RequestRecord Record(uint64_t id, uint32_t choices = 1, uint32_t max_tokens = 4) {
  RequestRecord record;
  record.request = {id, id};
  record.model = "m";
  record.surface = "default";
  record.choices = choices;
  record.timeout_us = 60'000 * kMs;
  record.prompt = {1, 2, 3};
  record.sampling.seed = id;
  record.stop.max_tokens = max_tokens;
  return record;
}

// One line a message or event, e.g. "s0<place 1", "n0<submit 0@0+2", "tokens 0:7,8 length",
// "ended".
std::string Line(const OwnerOutput& out) {
  std::string text;
  const auto add = [&](const std::string& word) { text += (text.empty() ? "" : "; ") + word; };
  for (const ToScheduler& to : out.to_schedulers) {
    std::string word = "s" + std::to_string(to.scheduler) + "<";
    if (const auto* place = std::get_if<Place>(&to.message)) {
      word += "place " + std::to_string(place->attempt);
    } else {
      word += "release " + std::to_string(std::get<Release>(to.message).attempt);
    }
    add(word);
  }
  for (const ToNode& to : out.to_nodes) {
    if (const auto* submit = std::get_if<Submit>(&to.message)) {
      add(to.endpoint + "<submit " + std::to_string(submit->sequence.choice) + "@" +
          std::to_string(submit->attempt) + "+" + std::to_string(submit->generated.size()));
    } else {
      const auto& cancel = std::get<Cancel>(to.message);
      add(to.endpoint + "<cancel " + std::to_string(cancel.sequence.choice) + "@" +
          std::to_string(cancel.attempt));
    }
  }
  for (const OwnerEvent& event : out.events) {
    if (const auto* delivered = std::get_if<Delivered>(&event)) {
      std::string word = "tokens " + std::to_string(delivered->sequence.choice) + ":";
      for (const SampledToken& token : delivered->tokens) word += std::to_string(token.id) + ",";
      if (delivered->finish != FinishReason::kNone)
        word += std::string(FinishReasonName(delivered->finish));
      add(word);
    } else if (const auto* ended = std::get_if<Ended>(&event)) {
      add("ended " +
          (ended->status.ok() ? "ok" : std::string(StatusCodeName(ended->status.code()))));
    }
  }
  return text;
}

class RequestOwnerTest : public ::testing::Test {
 protected:
  RequestOwnerTest() { Make(1); }
  void Make(uint32_t schedulers) {
    options_.schedulers = schedulers;
    owner_ = std::make_unique<RequestOwner>(options_);
    for (uint32_t i = 0; i < schedulers; ++i) Do(SchedulerUp{i});
  }
  std::string Do(OwnerInput input) { return Line(owner_->Step(std::move(input), now_us_)); }
  std::string Start(const RequestRecord& record) { return Do(StartRequest{record}); }
  std::string Give(uint64_t id, uint32_t attempt, const std::string& node, uint32_t scheduler = 0) {
    return Do(FromScheduler{scheduler, Ticket{{id, id}, attempt, "r", node, 1, {}}});
  }
  std::string Say(const std::string& node, uint64_t id, uint32_t attempt, uint32_t first,
                  std::vector<TokenId> ids, FinishReason finish = FinishReason::kNone,
                  uint32_t choice = 0) {
    return Do(FromNode{node, Update(id, attempt, first, std::move(ids), finish, choice)});
  }
  static Tokens Update(uint64_t id, uint32_t attempt, uint32_t first, std::vector<TokenId> ids,
                       FinishReason finish, uint32_t choice) {
    TokenUpdate update;
    update.sequence = {{id, id}, choice};
    update.attempt = attempt;
    update.first_index = first;
    for (const TokenId token : ids) update.tokens.push_back({token, 0.0F, {}});
    update.finish = finish;
    return Tokens{{update}};
  }
  static Tokens Fault(uint64_t id, uint32_t attempt, StatusCode code) {
    Tokens tokens = Update(id, attempt, 0, {}, FinishReason::kError, 0);
    tokens.updates[0].error_code = code;
    tokens.updates[0].error = "no";
    return tokens;
  }

  RequestOwnerOptions options_;
  std::unique_ptr<RequestOwner> owner_;
  int64_t now_us_ = 1'000'000;
};

TEST_F(RequestOwnerTest, CarriesARequestFromPlaceToRelease) {
  EXPECT_EQ(Start(Record(1)), "s0<place 0");
  EXPECT_EQ(Give(1, 0, "n0"), "n0<submit 0@0+0");
  EXPECT_EQ(Say("n0", 1, 0, 0, {7}), "tokens 0:7,");
  EXPECT_EQ(Say("n0", 1, 0, 1, {8, 9}, FinishReason::kStop),
            "s0<release 0; tokens 0:8,9,stop; ended ok");
  EXPECT_EQ(owner_->requests(), 0U);
}

TEST_F(RequestOwnerTest, IgnoresDuplicatesAndTakesTheRestOfAnOverlap) {
  Start(Record(1));
  Give(1, 0, "n0");
  EXPECT_EQ(Give(1, 0, "n0"), "");
  EXPECT_EQ(Say("n0", 1, 0, 0, {7, 8}), "tokens 0:7,8,");
  EXPECT_EQ(Say("n0", 1, 0, 0, {7, 8}), "");
  EXPECT_EQ(Say("n0", 1, 0, 1, {8, 9}), "tokens 0:9,");
  EXPECT_EQ(owner_->counters().duplicate_tokens, 3U);
  EXPECT_EQ(owner_->counters().mismatched_tokens, 0U);
  EXPECT_EQ(Say("n0", 1, 0, 0, {6}), "");
  EXPECT_EQ(owner_->counters().mismatched_tokens, 1U);
}

TEST_F(RequestOwnerTest, AGapEndsTheAttemptAndTheNextOneGoesOnFromTheTokensSoFar) {
  Start(Record(1));
  Give(1, 0, "n0");
  Say("n0", 1, 0, 0, {7});
  EXPECT_EQ(Say("n0", 1, 0, 2, {9}), "s0<release 0; s0<place 1; n0<cancel 0@0");
  EXPECT_EQ(Give(1, 1, "n1"), "n1<submit 0@1+1");
  EXPECT_EQ(Say("n0", 1, 0, 1, {8}), "n0<cancel 0@0");  // late
  EXPECT_EQ(owner_->counters().late_messages, 1U);
  EXPECT_EQ(Say("n1", 1, 1, 1, {8, 9, 10}, FinishReason::kLength),
            "s0<release 1; tokens 0:8,9,10,length; ended ok");
}

TEST_F(RequestOwnerTest, ALostNodeOrAWordOfTheSchedulerOpensTheNextAttempt) {
  options_.limits.attempts_max = 2;
  Make(1);
  Start(Record(1));
  Give(1, 0, "n0");
  Say("n0", 1, 0, 0, {7});
  EXPECT_EQ(Do(NodeLost{"n0", "silent"}), "s0<release 0; s0<place 1; n0<cancel 0@0");
  EXPECT_EQ(Do(FromScheduler{0, Lost{{1, 1}, 0, "gone", false}}), "");  // says the same, later
  Give(1, 1, "n1");
  Say("n1", 1, 1, 1, {8});
  EXPECT_EQ(Do(FromScheduler{0, Lost{{1, 1}, 1, "gone", false}}),
            "s0<release 1; s0<place 2; n1<cancel 0@1");
  Give(1, 2, "n2");
  EXPECT_EQ(Do(NodeLost{"n2", "silent"}), "s0<release 2; n2<cancel 0@2");
  now_us_ += options_.place_repeat_us;
  EXPECT_EQ(Do(OwnerTick{}), "s0<place 3");
  Give(1, 3, "n2");
  EXPECT_EQ(Do(NodeLost{"n2", "silent"}), "s0<release 3; n2<cancel 0@3; ended unavailable");
}

TEST_F(RequestOwnerTest, AFaultOfTheRequestIsNotTriedAgain) {
  Start(Record(1));
  Give(1, 0, "n0");
  EXPECT_EQ(Do(FromNode{"n0", Fault(1, 0, StatusCode::kInvalidArgument)}),
            "s0<release 0; n0<cancel 0@0; ended invalid_argument");
  Start(Record(2));
  Give(2, 0, "n0");
  // Without progress the next attempt waits a little.
  EXPECT_EQ(Do(FromNode{"n0", Fault(2, 0, StatusCode::kUnavailable)}),
            "s0<release 0; n0<cancel 0@0");
  EXPECT_EQ(Do(OwnerTick{}), "");
  now_us_ += options_.retry_backoff_us;
  EXPECT_EQ(Do(OwnerTick{}), "s0<place 1");
}

TEST_F(RequestOwnerTest, EachChoiceHasItsOwnStreamAndTheLastOneEndsTheRequest) {
  Start(Record(1, 2));
  EXPECT_EQ(Give(1, 0, "n0"), "n0<submit 0@0+0; n0<submit 1@0+0");
  EXPECT_EQ(Say("n0", 1, 0, 0, {7, 8, 9, 10}, FinishReason::kLength), "tokens 0:7,8,9,10,length");
  EXPECT_EQ(Say("n0", 1, 0, 0, {5}, FinishReason::kNone, 1), "tokens 1:5,");
  // Only what is unfinished moves on.
  EXPECT_EQ(Do(NodeLost{"n0", "silent"}), "s0<release 0; s0<place 1; n0<cancel 1@0");
  EXPECT_EQ(Give(1, 1, "n1"), "n1<submit 1@1+1");
  EXPECT_EQ(Do(StopChoice{{{1, 1}, 1}}), "s0<release 1; n1<cancel 1@1; ended ok");
}

TEST_F(RequestOwnerTest, CancelFreesTheNodeAndTheSchedulerWithoutAnEvent) {
  Start(Record(1, 2));
  EXPECT_EQ(Do(CancelRequest{{1, 1}}), "s0<release 0");
  Start(Record(2, 2));
  Give(2, 0, "n0");
  EXPECT_EQ(Do(CancelRequest{{2, 2}}), "s0<release 0; n0<cancel 0@0; n0<cancel 1@0");
  EXPECT_EQ(Do(CancelRequest{{2, 2}}), "");
  EXPECT_EQ(Give(1, 0, "n0"), "s0<release 0");  // too late: given back
  EXPECT_EQ(owner_->requests(), 0U);
}

TEST_F(RequestOwnerTest, EndAllTellsEveryoneAndFreesTheNodes) {
  Start(Record(1, 2));
  Give(1, 0, "n0");
  Start(Record(2));
  const std::string said = Do(EndAll{Unavailable("stopping")});
  for (const char* word : {"n0<cancel 0@0", "n0<cancel 1@0", "s0<release 0"})
    EXPECT_NE(said.find(word), std::string::npos) << said;
  EXPECT_NE(said.find("ended unavailable; ended unavailable"), std::string::npos) << said;
  EXPECT_EQ(owner_->requests(), 0U);
}

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

TEST_F(RequestOwnerTest, AsksAgainAfterSilenceAndAnotherSchedulerWhenOneIsDown) {
  Make(2);
  EXPECT_EQ(Start(Record(2)), "s0<place 0");
  now_us_ += options_.place_repeat_us;
  EXPECT_EQ(Do(OwnerTick{}), "s0<place 0");
  EXPECT_EQ(Do(SchedulerDown{0}), "s1<place 1");
  EXPECT_EQ(Give(2, 0, "n0", 0), "s0<release 0");  // what the first one said late
  EXPECT_EQ(Do(SchedulerDown{1}), "");
  now_us_ += options_.place_repeat_us;
  EXPECT_EQ(Do(OwnerTick{}), "");
  EXPECT_EQ(Do(SchedulerUp{1}), "s1<place 2");
  EXPECT_EQ(Give(2, 2, "n0", 1), "n0<submit 0@2+0");
}

TEST_F(RequestOwnerTest, ARestartedSchedulerIsToldOfWhatWaitsAndWhatRuns) {
  Start(Record(1));
  Start(Record(2));
  Give(2, 0, "n0");
  Say("n0", 2, 0, 0, {7});
  EXPECT_EQ(Do(SchedulerDown{0}), "");
  EXPECT_EQ(Say("n0", 2, 0, 1, {8}), "tokens 0:8,");  // the stream does not notice
  EXPECT_EQ(Do(SchedulerUp{0}), "s0<place 0; s0<place 1");
  EXPECT_EQ(Give(2, 0, "n0"), "");  // found again
  EXPECT_EQ(Give(1, 1, "n0"), "n0<submit 0@1+0");
}

TEST_F(RequestOwnerTest, ARefusalEndsANewRequestAfterEachSchedulerWasAsked) {
  Make(2);
  EXPECT_EQ(Start(Record(2)), "s0<place 0");
  Refused refused{{2, 2}, 0, StatusCode::kResourceExhausted, "full", 5, {}};
  EXPECT_EQ(Do(FromScheduler{0, refused}), "s1<place 1");
  refused.attempt = 1;
  EXPECT_EQ(Do(FromScheduler{1, refused}), "s1<release 1; ended resource_exhausted");
}

TEST_F(RequestOwnerTest, ABegunStreamWaitsThroughRefusalsUntilThePlaceTimeout) {
  Start(Record(1));
  Give(1, 0, "n0");
  Say("n0", 1, 0, 0, {7});
  Do(NodeLost{"n0", "silent"});
  EXPECT_EQ(
      Do(FromScheduler{0, Refused{{1, 1}, 1, StatusCode::kUnavailable, "none", 100 * kMs, {}}}),
      "");
  now_us_ += 100 * kMs;
  EXPECT_EQ(Do(OwnerTick{}), "s0<place 2");
  now_us_ += options_.limits.place_timeout_us;
  EXPECT_EQ(Do(OwnerTick{}), "s0<release 2; ended unavailable");
}

TEST_F(RequestOwnerTest, SaysWhyThereWasNoPlace) {
  const auto why = [&](uint64_t id) {
    Start(Record(id));
    now_us_ += options_.limits.place_timeout_us;
    const OwnerOutput out = owner_->Step(OwnerTick{}, now_us_);
    const auto* ended = out.events.empty() ? nullptr : std::get_if<Ended>(&out.events.back());
    return ended == nullptr ? "not ended" : ended->status.message();
  };
  const std::string model = Record(1).model;
  EXPECT_EQ(why(1), "the scheduler found no replica of " + model + " in time; retry later");
  Do(ReplicasReady{model, 0});
  EXPECT_EQ(why(2), "no replica of " + model + " is ready; retry later");
  Do(ReplicasReady{model, 2});
  EXPECT_EQ(why(3), "all replicas of " + model +
                        " (2 ready) were full until the place timeout; retry later");
  Do(SchedulerDown{0});
  EXPECT_EQ(why(4), "no scheduler is reachable; retry later");
}

TEST_F(RequestOwnerTest, TellsOfEachNewAttemptWithItsCause) {
  Start(Record(1));
  Give(1, 0, "n0");
  const OwnerOutput out = owner_->Step(NodeLost{"n0", "it is silent"}, now_us_);
  ASSERT_EQ(out.events.size(), 1U);
  const auto& again = std::get<Reattempted>(out.events[0]);
  EXPECT_EQ(again.request, (RequestId{1, 1}));
  EXPECT_EQ(again.attempt, 0U);
  EXPECT_EQ(again.endpoint, "n0");
  EXPECT_EQ(again.cause.message(), "the node was lost: it is silent");
}

TEST_F(RequestOwnerTest, TheDeadlineEndsARequestWhereverItStands) {
  RequestRecord record = Record(1);
  record.timeout_us = 10 * kMs;
  Start(record);
  Give(1, 0, "n0");
  now_us_ += 10 * kMs;
  EXPECT_EQ(Do(OwnerTick{}), "s0<release 0; n0<cancel 0@0; ended deadline_exceeded");
}

TEST_F(RequestOwnerTest, RefusesMoreThanItsLimit) {
  options_.limits.requests_max = 1;
  Make(1);
  Start(Record(1));
  EXPECT_EQ(Start(Record(2)), "ended resource_exhausted");
  EXPECT_EQ(owner_->requests(), 1U);
}

TEST_F(RequestOwnerTest, AChoiceThatBrokeOffAfterItsLastTokenIsFinishedOnTheSpot) {
  Start(Record(1, 1, 2));
  Give(1, 0, "n0");
  Say("n0", 1, 0, 0, {7, 8});  // the word that this was all got lost
  EXPECT_EQ(Do(NodeLost{"n0", "silent"}), "s0<release 0; n0<cancel 0@0; tokens 0:length; ended ok");
}

// --- the same on a network that drops, doubles and reorders ---

TokenId PureToken(uint64_t seed, uint32_t choice, size_t index) {
  return static_cast<TokenId>((seed * 7919 + choice * 104729 + index * 31) % 1000);
}

// Two schedulers and three nodes around one owner; every message may be lost, doubled or overtaken.
class World {
 public:
  explicit World(uint32_t seed) : random_(seed) {
    RequestOwnerOptions options;
    options.schedulers = 2;
    options.limits.attempts_max = 1000;
    owner_ = std::make_unique<RequestOwner>(options);
    Apply(owner_->Step(SchedulerUp{0}, now_us_));
    Apply(owner_->Step(SchedulerUp{1}, now_us_));
  }

  void Start(const RequestRecord& record) {
    records_[record.request] = record;
    Apply(owner_->Step(StartRequest{record}, now_us_));
  }

  void Turn() {
    now_us_ += 1 + random_() % (20 * kMs);
    for (auto& [name, node] : nodes_) StepNode(name, node);
    if (random_() % 50 == 0) LoseNode("n" + std::to_string(random_() % 3));
    if (random_() % 80 == 0) {
      const uint32_t scheduler = random_() % 2;
      Apply(owner_->Step(SchedulerDown{scheduler}, now_us_));
      Apply(owner_->Step(SchedulerUp{scheduler}, now_us_));
    }
    for (int i = 0; i < 20 && !wire_.empty(); ++i) {
      const size_t pick = random_() % std::min<size_t>(wire_.size(), 3);
      OwnerInput input = wire_[pick];
      if (random_() % 10 != 0) wire_.erase(wire_.begin() + static_cast<std::ptrdiff_t>(pick));
      if (random_() % 20 != 0) {
        Apply(owner_->Step(std::move(input), now_us_));
      } else if (const auto* last = std::get_if<FromNode>(&input); last && Ends(*last)) {
        LoseNode(last->endpoint);  // what nothing follows is lost only together with its connection
      }
    }
    Apply(owner_->Step(OwnerTick{}, now_us_));
  }

  bool AllEnded() const { return ended_.size() == records_.size(); }

  void CheckAnswers() const {
    for (const auto& [id, record] : records_) {
      ASSERT_TRUE(ended_.at(id)) << "request " << id.low;
      for (uint32_t choice = 0; choice < record.choices; ++choice) {
        const auto& tokens = told_.at({id, choice});
        ASSERT_EQ(tokens.size(), record.stop.max_tokens);
        for (size_t i = 0; i < tokens.size(); ++i)
          ASSERT_EQ(tokens[i], PureToken(record.sampling.seed, choice, i));
      }
    }
    EXPECT_EQ(owner_->requests(), 0U);
    EXPECT_EQ(owner_->counters().mismatched_tokens, 0U);
  }

  const OwnerCounters& counters() const { return owner_->counters(); }

 private:
  using Node = std::map<std::pair<SequenceId, uint32_t>, Submit>;

  void StepNode(const std::string& name, Node& node) {
    Tokens tokens;
    for (auto entry = node.begin(); entry != node.end();) {
      Submit& submit = entry->second;
      TokenUpdate update;
      update.sequence = submit.sequence;
      update.attempt = submit.attempt;
      update.first_index = static_cast<uint32_t>(submit.generated.size());
      const TokenId id =
          PureToken(submit.sampling.seed, submit.sequence.choice, submit.generated.size());
      update.tokens.push_back({id, 0.0F, {}});
      submit.generated.push_back(id);
      const bool over = submit.generated.size() == submit.stop.max_tokens;
      if (over) update.finish = FinishReason::kLength;
      tokens.updates.push_back(update);
      entry = over ? node.erase(entry) : std::next(entry);
    }
    if (!tokens.updates.empty()) wire_.push_back(FromNode{name, tokens});
  }

  static bool Ends(const FromNode& input) {
    const auto& updates = std::get<Tokens>(input.message).updates;
    return std::any_of(updates.begin(), updates.end(), [](const TokenUpdate& update) {
      return update.finish != FinishReason::kNone;
    });
  }

  void LoseNode(const std::string& name) {
    nodes_[name].clear();
    Apply(owner_->Step(NodeLost{name, "crashed"}, now_us_));
  }

  void Apply(const OwnerOutput& out) {
    for (const ToScheduler& to : out.to_schedulers) {
      const auto* place = std::get_if<Place>(&to.message);
      if (place == nullptr) continue;
      const std::string node = "n" + std::to_string(random_() % 3);
      wire_.push_back(
          FromScheduler{to.scheduler, Ticket{place->request, place->attempt, "r", node, 1, {}}});
    }
    for (const ToNode& to : out.to_nodes) {
      if (const auto* submit = std::get_if<Submit>(&to.message)) {
        if (random_() % 30 == 0) {  // its connection broke on the way
          broken_.push_back(to.endpoint);
          continue;
        }
        nodes_[to.endpoint][{submit->sequence, submit->attempt}] = *submit;
      } else {
        const auto& cancel = std::get<Cancel>(to.message);
        nodes_[to.endpoint].erase({cancel.sequence, cancel.attempt});
      }
    }
    for (const OwnerEvent& event : out.events) Note(event);
    while (!broken_.empty()) {
      const std::string name = broken_.front();
      broken_.pop_front();
      LoseNode(name);
    }
  }

  void Note(const OwnerEvent& event) {
    if (const auto* delivered = std::get_if<Delivered>(&event)) {
      EXPECT_EQ(ended_.count(delivered->sequence.request), 0U) << "tokens after the end";
      auto& tokens = told_[delivered->sequence];
      for (const SampledToken& token : delivered->tokens) tokens.push_back(token.id);
    } else if (const auto* ended = std::get_if<Ended>(&event)) {
      EXPECT_TRUE(ended_.emplace(ended->request, ended->status.ok()).second) << "ended twice";
    }
  }

  std::mt19937 random_;
  std::unique_ptr<RequestOwner> owner_;
  int64_t now_us_ = 1'000'000;
  std::deque<OwnerInput> wire_;
  std::map<std::string, Node> nodes_;
  std::deque<std::string> broken_;
  std::map<RequestId, RequestRecord> records_;
  std::map<SequenceId, std::vector<TokenId>> told_;
  std::map<RequestId, bool> ended_;
};

TEST(RequestOwnerWorld, EveryStreamIsWholeWhateverTheNetworkDoes) {
  OwnerCounters sum;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    for (uint64_t id = 1; id <= 8; ++id)
      world.Start(Record(id, 1 + id % 3, 1 + static_cast<uint32_t>(id * 5 % 23)));
    for (int turn = 0; turn < 20'000 && !world.AllEnded(); ++turn) world.Turn();
    ASSERT_TRUE(world.AllEnded());
    world.CheckAnswers();
    sum.gaps += world.counters().gaps;
    sum.duplicate_tokens += world.counters().duplicate_tokens;
    sum.late_messages += world.counters().late_messages;
    sum.retries += world.counters().retries;
  }
  // The network was as bad as it was meant to be.
  EXPECT_GT(sum.gaps, 100U);
  EXPECT_GT(sum.duplicate_tokens, 100U);
  EXPECT_GT(sum.late_messages, 100U);
  EXPECT_GT(sum.retries, 100U);
}

}  // namespace
}  // namespace muselet
