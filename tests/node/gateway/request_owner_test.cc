#include "node/gateway/request_owner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>

#include "tests/node/gateway/request_owner_fixture.h"

namespace muselet {
namespace {

using testing::kMs;
using testing::Record;
using testing::RequestOwnerTest;

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
