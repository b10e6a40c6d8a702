// The gateway's middle with a real scheduler between it and nodes that compute a pure function:
// what a client sees when a node dies, when the scheduler restarts, when nobody is there.
#include <gtest/gtest.h>

#include "base/peer_session.h"
#include "node/gateway/generation_service.h"
#include "scheduler/scheduler_service.h"
#include "tests/node/gateway/gateway_fakes.h"

namespace muselet {
namespace {

using testing::ByteTextModel;
using testing::FakeNode;
using testing::kByteVocab;
using testing::kEndToken;
using testing::PureToken;
using testing::SeeingSink;
using testing::Seen;
using testing::TurnUntil;

// A FakeNode that announces itself to a scheduler and reports, as a real one does.
class ClusterNode {
 public:
  ClusterNode(EventLoop& loop, WireContext& context, const std::string& name,
              const std::string& scheduler)
      : node(loop, context, name, "tcp://127.0.0.1:0"),
        replica_("r-" + name),
        loop_(loop),
        session_(MakeHello(name), {20'000, 300'000}, false) {
    auto client = MessageClient::Connect(
        loop, context, {name, RequestId::Random().low}, scheduler,
        [this](Envelope envelope) { Send(session_.OnEnvelope(envelope, loop_.NowUs())); });
    CHECK(client.ok(), client.status().message());
    client_ = std::move(*client);
    timer_ = std::make_unique<PeriodicTimer>(loop, 10'000, [this] { Report(); });
  }

  FakeNode node;

 private:
  Hello MakeHello(const std::string& name) const {
    ReplicaInfo info;
    info.replica = replica_;
    info.model = "bytes";
    info.numerics_id = "pure";
    info.endpoint = node.endpoint();
    info.epoch = 1;
    info.context_tokens = 64;
    info.kv_tokens = 4096;
    info.sequences_max = 8;
    Hello hello;
    hello.role = Role::kNode;
    hello.name = name;
    hello.replicas = {info};
    return hello;
  }

  void Send(ClientSession::Step step) {
    for (Message& message : step.send) (void)client_->Send(std::move(message));
  }

  void Report() {
    Send(session_.OnTick(loop_.NowUs()));
    if (!session_.joined()) return;
    muselet::Report report;
    report.replica = replica_;
    report.epoch = 1;
    report.sequence = ++reports_;
    report.running = static_cast<uint32_t>(node.running.size());
    report.kv_blocks_total = 256;
    for (const auto& [sequence, running] : node.running) report.active.push_back(sequence);
    (void)client_->Send(std::move(report));
  }

  const std::string replica_;
  EventLoop& loop_;
  ClientSession session_;
  std::unique_ptr<MessageClient> client_;
  uint64_t reports_ = 0;
  std::unique_ptr<PeriodicTimer> timer_;
};

class GatewayClusterTest : public ::testing::Test {
 protected:
  GatewayClusterTest()
      : metrics_(registry_, "g0", {"bytes"}), scheduler_metrics_(registry_, "s0", {"bytes"}) {
    StartScheduler("tcp://127.0.0.1:0");
    nodes_.push_back(std::make_unique<ClusterNode>(loop_, context_, "n0", endpoint_));
    GatewayServiceOptions options;
    options.name = "g0";
    options.schedulers = {endpoint_};
    options.gateway.heartbeat_interval_us = 20'000;
    // Well above the scheduler's: a ticket to a dead node must cost one attempt, not all of them.
    options.gateway.peer_timeout_us = 600'000;
    options.models = {{"bytes", ByteTextModel(), 64, kByteVocab, {kEndToken}}};
    auto service = GatewayService::Start(options, {"g0", 7}, loop_, context_, metrics_);
    CHECK(service.ok(), service.status().message());
    service_ = std::move(*service);
  }

  void StartScheduler(const std::string& endpoint) {
    SchedulerServiceOptions options;
    options.name = "s0";
    options.endpoint = endpoint;
    options.models = {"bytes"};
    options.route.heartbeat_interval_us = 20'000;
    options.route.peer_timeout_us = 300'000;
    // ZeroMQ gives a port back a moment after its socket was closed.
    Status status;
    CHECK(TurnUntil(loop_,
                    [&] {
                      auto scheduler =
                          SchedulerService::Start(options, {"s0", RequestId::Random().low}, loop_,
                                                  context_, scheduler_metrics_);
                      status = scheduler.status();
                      if (scheduler.ok()) scheduler_ = std::move(*scheduler);
                      return scheduler.ok();
                    }),
          status.message());
    endpoint_ = scheduler_->endpoint();
  }

  bool AwaitReady(uint32_t replicas) {
    return TurnUntil(loop_, [&] { return service_->Models()[0].replicas_ready == replicas; });
  }

  std::shared_ptr<Seen> Ask(uint32_t max_tokens) {
    GenerationRequest request;
    request.model = "bytes";
    request.prompt = TextPrompt{"hello"};
    request.max_tokens = max_tokens;
    request.has_seed = true;
    request.sampling.seed = 11;
    auto seen = std::make_shared<Seen>();
    service_->Start(std::move(request), std::make_unique<SeeingSink>(seen));
    return seen;
  }

  // The node that computes, once there is one.
  ClusterNode* Busy() {
    ClusterNode* busy = nullptr;
    TurnUntil(loop_, [&] {
      for (const auto& node : nodes_) {
        if (node != nullptr && !node->node.running.empty()) busy = node.get();
      }
      return busy != nullptr;
    });
    return busy;
  }

  // One step of whoever computes, until `tokens` have been seen.
  bool StepUntil(const Seen& seen, size_t tokens) {
    while (seen.Ids().size() < tokens) {
      const size_t before = seen.Ids().size();
      ClusterNode* busy = Busy();
      if (busy == nullptr) return false;
      busy->node.Step();
      if (!TurnUntil(loop_, [&] { return seen.Ids().size() > before || seen.over(); }))
        return false;
      if (seen.over()) break;
    }
    return true;
  }

  void ExpectWhole(const Seen& seen, uint32_t tokens) {
    Submit record;
    record.sampling.seed = 11;
    for (const char c : std::string("hello")) record.prompt.push_back(c);
    std::vector<TokenId> expected;
    for (size_t i = 0; i < tokens; ++i) expected.push_back(PureToken(record, i));
    EXPECT_EQ(seen.Ids(), expected);
    EXPECT_EQ(seen.ends, 1);
    EXPECT_TRUE(seen.done.has_value());
    EXPECT_EQ(seen.Finish(), FinishReason::kLength);
  }

  EventLoop loop_{"cluster"};
  WireContext context_;
  MetricRegistry registry_;
  GatewayMetrics metrics_;
  SchedulerMetrics scheduler_metrics_;
  std::unique_ptr<SchedulerService> scheduler_;
  std::string endpoint_;
  std::vector<std::unique_ptr<ClusterNode>> nodes_;
  std::unique_ptr<GatewayService> service_;
};

TEST_F(GatewayClusterTest, StreamsThroughASchedulerToANode) {
  ASSERT_TRUE(AwaitReady(1));
  EXPECT_TRUE(service_->Ready().ok());
  const auto seen = Ask(9);
  ASSERT_TRUE(StepUntil(*seen, 9));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->over(); }));
  ExpectWhole(*seen, 9);
  EXPECT_EQ(seen->start->numerics_id, "pure");
}

TEST_F(GatewayClusterTest, ANodeThatDiesInTheMiddleIsNotNoticedInTheStream) {
  nodes_.push_back(std::make_unique<ClusterNode>(loop_, context_, "n1", endpoint_));
  ASSERT_TRUE(AwaitReady(2));
  const auto seen = Ask(12);
  ASSERT_TRUE(StepUntil(*seen, 5));
  ClusterNode* busy = Busy();
  for (auto& node : nodes_) {
    if (node.get() == busy) node.reset();
  }
  ASSERT_TRUE(StepUntil(*seen, 12)) << (seen->error ? seen->error->status.ToString() : "no error");
  ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->over(); }));
  ExpectWhole(*seen, 12);
  EXPECT_GE(service_->counters().retries, 1U);
  ClusterNode* survivor = nodes_[0] ? nodes_[0].get() : nodes_[1].get();
  ASSERT_FALSE(survivor->node.submits.empty());
  EXPECT_GE(survivor->node.submits.back().attempt, 1U);
  EXPECT_GE(survivor->node.submits.back().generated.size(), 5U);
}

TEST_F(GatewayClusterTest, ASchedulerThatRestartsIsFoundAgainAndStreamsDoNotNotice) {
  ASSERT_TRUE(AwaitReady(1));
  const auto seen = Ask(20);
  ASSERT_TRUE(StepUntil(*seen, 3));
  scheduler_.reset();
  ASSERT_TRUE(AwaitReady(0));
  EXPECT_FALSE(service_->Ready().ok());
  ASSERT_TRUE(StepUntil(*seen, 10));
  StartScheduler(std::string(endpoint_));
  ASSERT_TRUE(AwaitReady(1));
  const auto next = Ask(2);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return nodes_[0]->node.running.size() == 2; }));
  ASSERT_TRUE(StepUntil(*seen, 20));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->over() && next->over(); }));
  ExpectWhole(*seen, 20);
  EXPECT_EQ(next->Ids().size(), 2U);
  EXPECT_EQ(service_->counters().retries, 0U);
  EXPECT_EQ(nodes_[0]->node.submits.size(), 2U);
}

TEST_F(GatewayClusterTest, ARequestThatWaitsOutlivesTheRestartOfTheScheduler) {
  nodes_.clear();
  const auto seen = Ask(3);
  ASSERT_TRUE(AwaitReady(0));
  scheduler_.reset();
  StartScheduler(std::string(endpoint_));
  nodes_.push_back(std::make_unique<ClusterNode>(loop_, context_, "n0", endpoint_));
  ASSERT_TRUE(StepUntil(*seen, 3));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->over(); }));
  ExpectWhole(*seen, 3);
}

}  // namespace
}  // namespace muselet
