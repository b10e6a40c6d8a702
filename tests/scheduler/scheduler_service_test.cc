// The scheduler behind real sockets, between a gateway and a node that speak the protocol by hand.
#include "scheduler/scheduler_service.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/peer_session.h"

namespace muselet {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);
constexpr int64_t kMs = 1000;

// A role that connects to the scheduler, says who it is, and reports if it leads a replica.
class FakePeer {
 public:
  FakePeer(EventLoop& loop, WireContext& context, const std::string& endpoint, const Hello& hello,
           uint64_t instance)
      : loop_(loop),
        hello_(hello),
        session_(hello, {50 * kMs, 1000 * kMs}),
        client_(*MessageClient::Connect(loop, context, {hello.name, instance}, endpoint,
                                        [this](Envelope envelope) { Take(std::move(envelope)); })),
        ticker_(loop, 20 * kMs, [this] { Tick(); }) {}

  void Send(Message message) { (void)client_->Send(std::move(message)); }
  void Mute() { muted_ = true; }

  bool joined() const { return session_.joined(); }
  int joins = 0;
  int losses = 0;
  std::vector<Ticket> tickets;
  std::vector<Lost> lost;
  std::vector<ModelState> models;
  std::vector<SequenceId> active;

 private:
  void Take(Envelope envelope) {
    Apply(session_.OnEnvelope(envelope, loop_.NowUs()));
    if (auto* ticket = std::get_if<Ticket>(&envelope.body)) tickets.push_back(*ticket);
    if (auto* gone = std::get_if<Lost>(&envelope.body)) lost.push_back(*gone);
    if (auto* table = std::get_if<ModelTable>(&envelope.body)) models = table->models;
  }
  void Tick() {
    if (muted_) return;
    Apply(session_.OnTick(loop_.NowUs()));
    for (const ReplicaInfo& replica : hello_.replicas) {
      Report report;
      report.replica = replica.replica;
      report.epoch = replica.epoch;
      report.sequence = ++report_sequence_;
      report.active = active;
      Send(report);
    }
  }
  void Apply(ClientSession::Step step) {
    for (Message& message : step.send) Send(std::move(message));
    for (const ClientSession::Event& event : step.events)
      ++(event.kind == ClientSession::Event::Kind::kJoined ? joins : losses);
  }

  EventLoop& loop_;
  Hello hello_;
  ClientSession session_;
  std::unique_ptr<MessageClient> client_;
  PeriodicTimer ticker_;
  uint64_t report_sequence_ = 0;
  bool muted_ = false;
};

class SchedulerServiceTest : public ::testing::TestWithParam<const char*> {
 protected:
  bool RunUntil(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      loop_.io().run_one_for(std::chrono::milliseconds(50));
    }
    return true;
  }

  Status Start(const std::string& endpoint) {
    SchedulerServiceOptions options;
    options.name = "s0";
    options.endpoint = endpoint;
    options.models = {"m"};
    options.route.heartbeat_interval_us = 50 * kMs;
    options.route.peer_timeout_us = 1500 * kMs;
    auto service = SchedulerService::Start(options, {"s0", ++instance_}, loop_, context_, metrics_);
    if (service.ok()) service_ = *std::move(service);
    return service.status();
  }

  void StartAll(const std::string& endpoint) {
    ASSERT_TRUE(Start(endpoint).ok());
    Hello gateway;
    gateway.name = "g0";
    gateway_ = std::make_unique<FakePeer>(loop_, context_, service_->endpoint(), gateway, 7);
    node_ = StartNode(8);
    ASSERT_TRUE(RunUntil([&] { return ReplicasKnown() == 1; }));
  }

  std::unique_ptr<FakePeer> StartNode(uint64_t instance) {
    ReplicaInfo replica;
    replica.replica = "r0";
    replica.model = "m";
    replica.endpoint = "inproc://node";
    replica.epoch = instance;
    replica.context_tokens = 2048;
    replica.sequences_max = 4;
    Hello node;
    node.role = Role::kNode;
    node.name = "n0";
    node.replicas = {replica};
    return std::make_unique<FakePeer>(loop_, context_, service_->endpoint(), node, instance);
  }

  uint32_t ReplicasKnown() const {
    return gateway_->models.empty() ? 0 : gateway_->models[0].replicas_ready;
  }

  static Place PlaceOf(uint64_t id, uint32_t attempt = 0) {
    Place place;
    place.request = {1, id};
    place.attempt = attempt;
    place.model = "m";
    place.prompt_tokens = 5;
    place.max_tokens = 5;
    return place;
  }

  MetricRegistry registry_;
  SchedulerMetrics metrics_{registry_, "s0", {"m"}};
  WireContext context_;
  EventLoop loop_{"scheduler"};
  uint64_t instance_ = 0;
  std::unique_ptr<SchedulerService> service_;
  std::unique_ptr<FakePeer> gateway_;
  std::unique_ptr<FakePeer> node_;
};

TEST_P(SchedulerServiceTest, PlacesARequestOnTheNode) {
  StartAll(GetParam());
  EXPECT_TRUE(RunUntil([&] { return service_->Ready().ok(); }));
  gateway_->Send(PlaceOf(1));
  ASSERT_TRUE(RunUntil([&] { return !gateway_->tickets.empty(); }));
  EXPECT_EQ(gateway_->tickets[0].replica, "r0");
  EXPECT_EQ(gateway_->tickets[0].endpoint, "inproc://node");
  EXPECT_EQ(gateway_->tickets[0].epoch, 8U);
  EXPECT_TRUE(RunUntil([&] {
    return registry_.Text().find("muselet_scheduler_tickets_total{scheduler=\"s0\"} 1") !=
           std::string::npos;
  })) << registry_.Text();
}

TEST_P(SchedulerServiceTest, CountsWhatSurfacesAreRefusedAndWait) {
  StartAll(GetParam());
  Place place = PlaceOf(1);
  place.surface = "default";
  place.prompt_tokens = 100'000;
  gateway_->Send(place);
  for (uint64_t id = 2; id <= 7; ++id) {
    place = PlaceOf(id);
    place.surface = "default";
    gateway_->Send(place);
  }
  const auto shows = [&](const std::string& line) {
    return RunUntil([&] { return registry_.Text().find(line) != std::string::npos; });
  };
  EXPECT_TRUE(
      shows("muselet_scheduler_surface_refusals_total{reason=\"too_long\",scheduler=\"s0\","
            "surface=\"default\"} 1"))
      << registry_.Text();
  EXPECT_TRUE(
      shows("muselet_scheduler_surface_waiting{class=\"interactive\",scheduler=\"s0\","
            "surface=\"default\"} 1"))
      << registry_.Text();
  EXPECT_TRUE(shows("muselet_scheduler_prompt_tokens_total{scheduler=\"s0\"} 25"))
      << registry_.Text();
}

TEST_P(SchedulerServiceTest, SilentNodeIsLostAndItsRequestsAreSaidToBe) {
  StartAll(GetParam());
  gateway_->Send(PlaceOf(1));
  ASSERT_TRUE(RunUntil([&] { return !gateway_->tickets.empty(); }));
  node_->Mute();
  ASSERT_TRUE(RunUntil([&] { return !gateway_->lost.empty(); }));
  EXPECT_EQ(gateway_->lost[0].request, PlaceOf(1).request);
  EXPECT_TRUE(RunUntil([&] { return !service_->Ready().ok(); }));
  EXPECT_EQ(service_->Ready().code(), StatusCode::kUnavailable);
}

TEST_P(SchedulerServiceTest, SchedulerThatStopsSaysGoodbye) {
  StartAll(GetParam());
  ASSERT_TRUE(RunUntil([&] { return gateway_->joined() && node_->joined(); }));
  service_.reset();
  EXPECT_TRUE(RunUntil([&] { return !gateway_->joined() && !node_->joined(); }));
}

INSTANTIATE_TEST_SUITE_P(Wires, SchedulerServiceTest,
                         ::testing::Values("inproc://scheduler", "tcp://127.0.0.1:0"),
                         [](const auto& info) {
                           return std::string(info.index == 0 ? "inproc" : "tcp");
                         });

class SchedulerServiceTcpTest : public SchedulerServiceTest {};

TEST_P(SchedulerServiceTcpTest, RestartedSchedulerFindsEverybodyAgainAndAttachesWhatRuns) {
  StartAll(GetParam());
  gateway_->Send(PlaceOf(1));
  ASSERT_TRUE(RunUntil([&] { return !gateway_->tickets.empty(); }));
  node_->active = {{PlaceOf(1).request, 0}};
  const std::string endpoint = service_->endpoint();
  service_.reset();
  ASSERT_TRUE(RunUntil([&] { return Start(endpoint).ok(); }));
  ASSERT_TRUE(RunUntil([&] { return gateway_->losses == 1 && gateway_->joins == 2; }));
  gateway_->tickets.clear();
  gateway_->Send(PlaceOf(1));
  ASSERT_TRUE(RunUntil([&] { return !gateway_->tickets.empty(); }));
  EXPECT_EQ(gateway_->tickets[0].replica, "r0");
  EXPECT_TRUE(gateway_->lost.empty());
}

TEST_P(SchedulerServiceTcpTest, NodeWhoseConnectionBreaksIsLostBeforeItsSilenceWouldTell) {
  SchedulerServiceOptions options;
  options.name = "s0";
  options.endpoint = GetParam();
  options.models = {"m"};
  options.route.peer_timeout_us = 60'000 * kMs;
  auto service = SchedulerService::Start(options, {"s0", 1}, loop_, context_, metrics_);
  ASSERT_TRUE(service.ok()) << service.status().ToString();
  service_ = *std::move(service);
  Hello gateway;
  gateway.name = "g0";
  gateway_ = std::make_unique<FakePeer>(loop_, context_, service_->endpoint(), gateway, 7);
  node_ = StartNode(8);
  ASSERT_TRUE(RunUntil([&] { return ReplicasKnown() == 1; }));
  gateway_->Send(PlaceOf(1));
  ASSERT_TRUE(RunUntil([&] { return !gateway_->tickets.empty(); }));
  node_.reset();
  ASSERT_TRUE(RunUntil([&] { return !gateway_->lost.empty(); }));
  EXPECT_TRUE(RunUntil([&] { return ReplicasKnown() == 0; }));
}

TEST_P(SchedulerServiceTcpTest, TakenEndpointIsAFault) {
  ASSERT_TRUE(Start(GetParam()).ok());
  const std::string endpoint = service_->endpoint();
  const Status second = Start(endpoint);
  EXPECT_EQ(second.code(), StatusCode::kUnavailable);
  EXPECT_NE(second.message().find(endpoint), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Wires, SchedulerServiceTcpTest, ::testing::Values("tcp://127.0.0.1:0"),
                         [](const auto&) { return std::string("tcp"); });

}  // namespace
}  // namespace muselet
