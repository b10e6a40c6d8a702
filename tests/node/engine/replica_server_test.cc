// A replica over real sockets, between a gateway and a scheduler that the test plays.
#include "node/engine/replica_server.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "tests/node/engine/pipeline_engine.h"
#include "tests/node/engine/toy_model.h"

namespace muselet {
namespace {

using testing::ToyModel;

class ReplicaServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto scheduler = MessageServer::Bind(loop_, context_, {"s0", 11}, "inproc://scheduler",
                                         [this](const std::string& peer, Envelope envelope) {
                                           OnNodeMessage(peer, std::move(envelope));
                                         });
    ASSERT_TRUE(scheduler.ok());
    scheduler_ = *std::move(scheduler);
  }
  void TearDown() override {
    OpenGate();
    // The sockets go before the loop.
    gateway_.reset();
    scheduler_.reset();
    server_.reset();
  }

  void StartReplica() {
    ReplicaServerOptions options;
    options.replica = "r0";
    options.model = "toy";
    options.endpoint = "inproc://replica";
    options.schedulers = {"inproc://scheduler"};
    options.engine.report_interval_us = 5'000;
    options.engine.peer_timeout_us = peer_timeout_us_;
    options.engine.orphan_timeout_us = orphan_timeout_us_;
    options.silence_max_us = silence_max_us_;
    options.local = {"n0", 1};
    model_ = std::make_shared<ToyModel>();
    auto engine = std::make_unique<testing::PipelineEngine>(testing::PipelineOptions{.stages = 2});
    engine_ = engine.get();
    auto server =
        over_ranks_ ? ReplicaServer::Start(options, std::unique_ptr<StepEngine>(std::move(engine)),
                                           loop_, context_, metrics_)
                    : ReplicaServer::Start(options, model_, loop_, context_, metrics_);
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = *std::move(server);
    auto gateway = MessageClient::Connect(
        loop_, context_, {"g0", 5}, server_->info().endpoint,
        [this](Envelope envelope) { OnReplicaMessage(std::move(envelope)); });
    ASSERT_TRUE(gateway.ok());
    gateway_ = *std::move(gateway);
    ASSERT_TRUE(gateway_->Send(Hello{}).ok());
  }

  void OnNodeMessage(const std::string& peer, Envelope envelope) {
    if (auto* hello = std::get_if<Hello>(&envelope.body)) {
      hellos_.push_back(std::move(*hello));
      if (welcoming_) (void)scheduler_->Send(peer, Welcome{"s0"});
    } else if (auto* report = std::get_if<Report>(&envelope.body)) {
      reports_.push_back(std::move(*report));
      if (forget_) (void)scheduler_->Send(peer, Unknown{});
      forget_ = false;
    } else if (auto* events = std::get_if<CacheEvents>(&envelope.body)) {
      cache_events_.push_back(std::move(*events));
    } else if (std::holds_alternative<Goodbye>(envelope.body)) {
      ++goodbyes_;
    }
  }
  void OnReplicaMessage(Envelope envelope) {
    if (std::holds_alternative<Welcome>(envelope.body)) ++welcomes_;
    if (std::holds_alternative<Unknown>(envelope.body)) ++unknowns_;
    if (std::holds_alternative<Goodbye>(envelope.body)) ++gateway_goodbyes_;
    if (const auto* tokens = std::get_if<Tokens>(&envelope.body)) {
      for (const TokenUpdate& update : tokens->updates) {
        auto& sequence = answers_[update.sequence.request.low];
        EXPECT_EQ(update.first_index, update.finish == FinishReason::kError ? 0 : sequence.size());
        for (const SampledToken& token : update.tokens) sequence.push_back(token.id);
        if (update.finish != FinishReason::kNone) finished_[update.sequence.request.low] = update;
      }
    }
  }

  Submit MakeSubmit(uint64_t number, uint32_t max_tokens = 20) {
    Submit submit;
    submit.sequence = {{0, number}, 0};
    submit.replica = "r0";
    submit.epoch = server_->info().epoch;
    submit.prompt = {1, 2, 3};
    submit.stop.max_tokens = max_tokens;
    submit.sampling.seed = number;
    return submit;
  }

  // While the gate is closed no step comes to an end.
  void CloseGate() {
    model_->before_forward = [this] {
      std::unique_lock lock(gate_mutex_);
      gate_changed_.wait(lock, [this] { return gate_open_; });
    };
  }
  void OpenGate() {
    {
      const std::lock_guard lock(gate_mutex_);
      gate_open_ = true;
    }
    gate_changed_.notify_all();
  }

  // Turns the loop until the condition holds; fails after a minute.
  template <typename Condition>
  void Await(Condition condition) {
    const int64_t deadline_us = loop_.NowUs() + 60'000'000;
    PeriodicTimer check(loop_, 500, [&] {
      if (condition() || loop_.NowUs() > deadline_us) loop_.Stop();
    });
    loop_.io().restart();
    loop_.Run();
    ASSERT_TRUE(condition());
  }

  EventLoop loop_{"test"};
  WireContext context_;
  MetricRegistry registry_;
  NodeMetrics metrics_{registry_, "n0", "r0", "toy"};
  int64_t peer_timeout_us_ = 60'000'000;
  int64_t silence_max_us_ = 750'000;
  int64_t orphan_timeout_us_ = 10'000'000;
  std::shared_ptr<ToyModel> model_;
  bool over_ranks_ = false;
  testing::PipelineEngine* engine_ = nullptr;  // with over_ranks_, while the server is there
  std::unique_ptr<MessageServer> scheduler_;
  std::unique_ptr<ReplicaServer> server_;
  std::unique_ptr<MessageClient> gateway_;

  std::mutex gate_mutex_;
  std::condition_variable gate_changed_;
  bool gate_open_ = false;

  bool welcoming_ = true;
  bool forget_ = false;
  std::vector<Hello> hellos_;
  std::vector<Report> reports_;
  std::vector<CacheEvents> cache_events_;
  int goodbyes_ = 0;  // to the scheduler
  int gateway_goodbyes_ = 0;
  int welcomes_ = 0;
  int unknowns_ = 0;
  std::map<uint64_t, std::vector<TokenId>> answers_;
  std::map<uint64_t, TokenUpdate> finished_;
};

TEST_F(ReplicaServerTest, AnswersAGatewayTokenByToken) {
  StartReplica();
  Await([&] { return welcomes_ > 0; });
  for (uint64_t number = 1; number <= 8; ++number)
    ASSERT_TRUE(gateway_->Send(MakeSubmit(number)).ok());
  Await([&] { return finished_.size() == 8; });
  for (const auto& [number, answer] : answers_) {
    EXPECT_EQ(answer.size(), 20U);
    EXPECT_EQ(finished_[number].finish, FinishReason::kLength);
  }
  EXPECT_EQ(server_->Health().sequences, 0U);
}

TEST_F(ReplicaServerTest, AnnouncesItselfUntilItIsWelcomeThenReports) {
  welcoming_ = false;
  StartReplica();
  Await([&] { return hellos_.size() >= 3; });
  EXPECT_TRUE(reports_.empty());
  EXPECT_EQ(hellos_[0].role, Role::kNode);
  ASSERT_EQ(hellos_[0].replicas.size(), 1U);
  EXPECT_EQ(hellos_[0].replicas[0], server_->info());
  EXPECT_EQ(server_->info().context_tokens, 256U);
  EXPECT_EQ(server_->info().kv_tokens, 64U * 16);
  welcoming_ = true;
  Await([&] { return reports_.size() >= 3; });
  EXPECT_EQ(reports_[0].epoch, server_->info().epoch);
  EXPECT_LT(reports_[0].sequence, reports_[1].sequence);
  EXPECT_EQ(reports_[0].kv_blocks_total, 64U);
  EXPECT_EQ(server_->Health().schedulers_connected, 1U);
  // A scheduler that restarted is told everything again.
  const size_t before = hellos_.size();
  forget_ = true;
  Await([&] { return hellos_.size() > before && !forget_; });
  const size_t reported = reports_.size();
  Await([&] { return reports_.size() > reported; });
}

TEST_F(ReplicaServerTest, ASchedulerThatFallsSilentIsLostAndFoundAgain) {
  peer_timeout_us_ = 100'000;
  StartReplica();
  Await([&] { return server_->Health().schedulers_connected == 1; });
  welcoming_ = false;
  Await([&] { return server_->Health().schedulers_connected == 0; });
  // More than can be on their way from before the loss: the last reports have arrived, too.
  size_t greeted = hellos_.size();
  Await([&] { return hellos_.size() >= greeted + 25; });
  const size_t reported = reports_.size();
  greeted = hellos_.size();
  Await([&] { return hellos_.size() >= greeted + 3; });
  EXPECT_EQ(reports_.size(), reported);
  welcoming_ = true;
  Await([&] { return reports_.size() > reported; });
}

TEST_F(ReplicaServerTest, ReportsNameTheSequencesThatItHolds) {
  StartReplica();
  Await([&] { return welcomes_ > 0; });
  CloseGate();
  ASSERT_TRUE(gateway_->Send(MakeSubmit(1)).ok());
  Await([&] { return !reports_.empty() && !reports_.back().active.empty(); });
  EXPECT_EQ(reports_.back().active[0].request.low, 1U);
  OpenGate();
  Await([&] { return finished_.size() == 1 && reports_.back().active.empty(); });
  EXPECT_GE(reports_.back().steps, 20U);
}

TEST_F(ReplicaServerTest, ReportsSayWhatWasServedAndWhatPrefillCosts) {
  StartReplica();
  Await([&] { return welcomes_ > 0; });
  Submit submit = MakeSubmit(1);
  submit.surface = "glasses";
  ASSERT_TRUE(gateway_->Send(submit).ok());
  Await([&] {
    return finished_.size() == 1 && !reports_.empty() && !reports_.back().served.empty() &&
           reports_.back().served[0].tokens == 23;
  });
  EXPECT_EQ(reports_.back().served[0].surface, "glasses");
  EXPECT_EQ(reports_.back().schedulers, 1U);
  EXPECT_EQ(reports_.back().prefill_tokens, 0U);
  EXPECT_GT(reports_.back().prefill_token_us, 0);
}

TEST_F(ReplicaServerTest, ASchedulerIsToldWhatThePrefixCacheHolds) {
  StartReplica();
  Await([&] { return welcomes_ > 0 && cache_events_.size() == 1; });
  EXPECT_TRUE(cache_events_[0].snapshot);
  EXPECT_TRUE(cache_events_[0].added.empty());
  EXPECT_EQ(cache_events_[0].epoch, server_->info().epoch);
  ASSERT_TRUE(gateway_->Send(MakeSubmit(1, 60)).ok());
  size_t added = 0;
  const auto count = [&] {
    added = 0;
    for (const CacheEvents& events : cache_events_) added += events.added.size();
    return added;
  };
  Await([&] { return finished_.size() == 1 && count() == 3; });
  for (size_t i = 1; i < cache_events_.size(); ++i) {
    EXPECT_EQ(cache_events_[i].sequence, cache_events_[i - 1].sequence + 1);
    EXPECT_FALSE(cache_events_[i].snapshot);
  }
  cache_events_.clear();
  forget_ = true;  // it restarted: it is told everything at once
  Await([&] { return !cache_events_.empty(); });
  EXPECT_TRUE(cache_events_[0].snapshot);
  EXPECT_EQ(cache_events_[0].added.size(), 3U);
}

// However late the loop is, a report is due whenever the slower timer below is.
TEST_F(ReplicaServerTest, AnIdleReplicaIsNotSilentForLongerThanItMayBe) {
  silence_max_us_ = 10'000;
  StartReplica();
  Await([&] { return reports_.size() >= 3; });
  const size_t reported = reports_.size();
  size_t ticks = 0;
  PeriodicTimer slower(loop_, 5 * silence_max_us_, [&] { ++ticks; });
  Await([&] { return ticks == 10; });
  EXPECT_GE(reports_.size() - reported, 6U);
}

TEST_F(ReplicaServerTest, ABadRequestAndAWrongEpochAreAnsweredAndHarmNobody) {
  StartReplica();
  Await([&] { return welcomes_ > 0; });
  Submit bad = MakeSubmit(1);
  bad.prompt = {64};
  ASSERT_TRUE(gateway_->Send(bad).ok());
  Submit old = MakeSubmit(2);
  --old.epoch;
  ASSERT_TRUE(gateway_->Send(old).ok());
  ASSERT_TRUE(gateway_->Send(MakeSubmit(3)).ok());
  Await([&] { return finished_.size() == 3; });
  EXPECT_EQ(finished_[1].error_code, StatusCode::kInvalidArgument);
  EXPECT_EQ(finished_[2].error_code, StatusCode::kUnavailable);
  EXPECT_EQ(finished_[3].finish, FinishReason::kLength);
}

TEST_F(ReplicaServerTest, ASilentGatewaysSequencesAreFreed) {
  peer_timeout_us_ = 30'000;
  orphan_timeout_us_ = 50'000;
  StartReplica();
  Await([&] { return welcomes_ > 0; });
  CloseGate();
  ASSERT_TRUE(gateway_->Send(MakeSubmit(1, 250)).ok());
  Await([&] { return server_->Health().sequences == 1; });
  Await([&] { return server_->Health().sequences == 0; });
  OpenGate();
  Await([&] { return reports_.back().steps > 0 && reports_.back().kv_blocks_used == 0; });
  EXPECT_LT(reports_.back().steps, 250U);
  EXPECT_TRUE(answers_.empty());
  // It comes back and learns that it was forgotten.
  ASSERT_TRUE(gateway_->Send(Heartbeat{}).ok());
  Await([&] { return unknowns_ > 0; });
}

TEST_F(ReplicaServerTest, AnotherGatewayTakesOverWhatALostOneHad) {
  StartReplica();
  Await([&] { return welcomes_ > 0; });
  Submit submit = MakeSubmit(1, 200);
  submit.sampling.temperature = 0.8F;
  ASSERT_TRUE(gateway_->Send(submit).ok());
  Await([&] { return answers_[1].size() >= 5; });
  // A process that starts again under the same name: the node learns at once that the old one is
  // gone.
  const std::vector<TokenId> first = std::exchange(answers_[1], {});
  gateway_ =
      *MessageClient::Connect(loop_, context_, {"g0", 6}, server_->info().endpoint,
                              [this](Envelope envelope) { OnReplicaMessage(std::move(envelope)); });
  ASSERT_TRUE(gateway_->Send(Hello{}).ok());
  Await([&] { return welcomes_ > 1; });
  answers_[1].clear();
  ASSERT_TRUE(gateway_->Send(submit).ok());
  Await([&] { return finished_.size() == 1; });
  EXPECT_EQ(finished_[1].finish, FinishReason::kLength);
  EXPECT_EQ(answers_[1].size(), 200U);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), answers_[1].begin()));
}

TEST_F(ReplicaServerTest, DrainFinishesWhatRunsAndTakesNothingNew) {
  StartReplica();
  Await([&] { return welcomes_ > 0; });
  ASSERT_TRUE(gateway_->Send(MakeSubmit(1, 200)).ok());
  Await([&] { return !answers_[1].empty(); });
  server_->Drain();
  Await([&] { return server_->Health().draining; });
  ASSERT_TRUE(gateway_->Send(MakeSubmit(2)).ok());
  Await([&] { return finished_.size() == 2 && server_->drained(); });
  EXPECT_EQ(answers_[1].size(), 200U);
  EXPECT_EQ(finished_[2].error_code, StatusCode::kUnavailable);
  EXPECT_FALSE(server_->Health().ready);
  EXPECT_EQ(server_->Health().reason, "r0 is draining");
  Await([&] { return !reports_.empty() && reports_.back().draining; });
  server_->Stop();
  Await([&] { return goodbyes_ == 1 && gateway_goodbyes_ == 1; });
}

TEST_F(ReplicaServerTest, WithoutItsRanksAReplicaIsNotReadyAndTakesNothingNew) {
  over_ranks_ = true;
  StartReplica();
  Await([&] { return welcomes_ > 0 && !reports_.empty(); });
  EXPECT_TRUE(server_->Health().ready);
  EXPECT_FALSE(reports_.back().draining);
  ASSERT_TRUE(gateway_->Send(MakeSubmit(1, 200)).ok());
  Await([&] { return !answers_[1].empty(); });
  engine_->SetAvailable(false);
  EXPECT_FALSE(server_->Health().ready);
  EXPECT_FALSE(server_->Health().hung);
  EXPECT_EQ(server_->Health().reason, "r0 waits for its ranks");
  Await([&] { return reports_.back().draining; });
  EXPECT_EQ(reports_.back().active.size(), 1U);
  // What was on its way waits here.
  ASSERT_TRUE(gateway_->Send(MakeSubmit(2)).ok());
  Await([&] { return server_->Health().sequences == 2; });
  engine_->SetAvailable(true);
  EXPECT_TRUE(server_->Health().ready);
  Await([&] { return finished_.size() == 2 && !reports_.back().draining; });
  EXPECT_EQ(answers_[1].size(), 200U);
  EXPECT_EQ(answers_[2].size(), 20U);
}

TEST_F(ReplicaServerTest, AnEndpointInUseIsOneClearFault) {
  StartReplica();
  ReplicaServerOptions options;
  options.replica = "r1";
  options.endpoint = "inproc://replica";
  options.local = {"n0", 1};
  const auto second = ReplicaServer::Start(options, model_, loop_, context_, metrics_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find("r1"), std::string::npos);
}

}  // namespace
}  // namespace muselet
