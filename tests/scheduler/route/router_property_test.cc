// The router among gateways and nodes on a network that drops, copies and reorders, with nodes and
// gateways that restart: whatever happens, every attempt that a gateway keeps asking for is
// answered, with one answer, and when all is over no credit is held.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "scheduler/route/router.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

constexpr int64_t kStepUs = 50'000;

class World {
 public:
  explicit World(uint32_t seed) : random_(seed) {
    for (int i = 0; i < 2; ++i) gateways_.emplace_back("g" + std::to_string(i), 1);
    for (int i = 0; i < 3; ++i) nodes_.emplace_back("n" + std::to_string(i), 1);
  }

  void Run(int steps, bool faults) {
    faults_ = faults;
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) Step();
  }

  void StopAsking() { asking_ = false; }

  void ExpectSettled() {
    for (const Gateway& gateway : gateways_)
      for (const auto& [id, request] : gateway.requests)
        EXPECT_TRUE(request.over) << gateway.name << " " << id << "." << request.attempt;
    EXPECT_EQ(router_.counts().waiting, 0U);
    EXPECT_EQ(router_.counts().placed, 0U);
    for (const auto& [name, replica] : router_.replicas().all()) {
      EXPECT_EQ(replica.ticket_sequences, 0U) << name;
      EXPECT_EQ(replica.ticket_tokens, 0U) << name;
      EXPECT_EQ(replica.foreign_sequences, 0U) << name;
    }
    EXPECT_GT(finished_, 20);
  }

  int finished() const { return finished_; }
  int lost() const { return lost_; }

 private:
  struct Request {
    uint32_t attempt = 0;
    std::string node;  // where it runs, once it has a ticket
    int steps_left = 0;
    bool refused = false;
    bool over = false;
  };
  struct Gateway {
    Gateway(std::string name, uint64_t instance) : name(std::move(name)), instance(instance) {}
    std::string name;
    uint64_t instance;
    std::map<uint64_t, Request> requests;
    std::string id() const { return name + "#" + std::to_string(instance); }
  };
  struct Node {
    Node(std::string name, uint64_t instance) : name(std::move(name)), instance(instance) {}
    std::string name;
    uint64_t instance;
    uint64_t reports = 0;
    std::map<uint64_t, uint32_t> active;  // request -> attempt
    std::string id() const { return name + "#" + std::to_string(instance); }
    Hello hello() const {
      ReplicaInfo replica;
      replica.replica = replica.endpoint = name;
      replica.model = "m";
      replica.epoch = instance;
      replica.context_tokens = 1000;
      replica.sequences_max = 4;
      Hello hello;
      hello.role = Role::kNode;
      hello.name = name;
      hello.replicas = {replica};
      return hello;
    }
  };
  struct Flying {
    std::string peer;
    Envelope envelope;
  };

  bool Chance(double p) { return std::uniform_real_distribution<>(0, 1)(random_) < p; }
  size_t Below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  void ToRouter(const std::string& peer, uint64_t instance, Message message) {
    Transmit(to_router_, {peer, {peer, instance, 0, std::move(message)}});
  }
  void Transmit(std::deque<Flying>& wire, Flying flying) {
    if (faults_ && Chance(0.1)) return;
    if (faults_ && Chance(0.1)) wire.push_back(flying);
    const size_t back = faults_ && Chance(0.1) ? Below(wire.size() + 1) : 0;
    wire.insert(wire.end() - static_cast<ptrdiff_t>(back), std::move(flying));
  }
  void Take(std::vector<Outgoing> messages) {
    for (Outgoing& outgoing : messages)
      Transmit(to_peers_, {outgoing.peer, {"s0", 1, 0, std::move(outgoing.message)}});
  }

  void Step() {
    now_us_ += kStepUs;
    if (faults_) Restart();
    for (Gateway& gateway : gateways_) Act(gateway);
    for (Node& node : nodes_) Act(node);
    // Some messages stay under way for a later step.
    for (size_t n = to_router_.size() - (faults_ ? to_router_.size() / 8 : 0); n > 0; --n) {
      const Flying flying = std::move(to_router_.front());
      to_router_.pop_front();
      Take(router_.OnMessage(flying.peer, flying.envelope, now_us_));
      CheckCredits();
    }
    Take(router_.OnTick(now_us_));
    for (size_t n = to_peers_.size() - (faults_ ? to_peers_.size() / 8 : 0); n > 0; --n) {
      const Flying flying = std::move(to_peers_.front());
      to_peers_.pop_front();
      for (Gateway& gateway : gateways_)
        if (gateway.id() == flying.peer) Hear(gateway, flying.envelope.body);
      for (Node& node : nodes_)
        if (node.id() == flying.peer && std::holds_alternative<Unknown>(flying.envelope.body))
          ToRouter(node.id(), node.instance, node.hello());
    }
  }

  void Restart() {
    if (Chance(0.005)) {
      Node& node = nodes_[Below(nodes_.size())];
      node = Node(node.name, node.instance + 1);
      ToRouter(node.id(), node.instance, node.hello());
    }
    if (Chance(0.002)) {
      Gateway& gateway = gateways_[Below(gateways_.size())];
      for (auto& [id, request] : gateway.requests) Forget(id);
      gateway = Gateway(gateway.name, gateway.instance + 1);
    }
  }

  void Act(Gateway& gateway) {
    if (Chance(0.2)) ToRouter(gateway.id(), gateway.instance, HelloOf(gateway));
    ToRouter(gateway.id(), gateway.instance, Heartbeat{});
    if (asking_ && Chance(0.5)) gateway.requests[++last_request_] = {};
    for (auto& [id, request] : gateway.requests) {
      if (request.over) continue;
      if (request.node.empty()) {
        if (Chance(0.5)) ToRouter(gateway.id(), gateway.instance, PlaceOf(id, request.attempt));
      } else if (--request.steps_left <= 0) {
        request.over = true;
        ++finished_;
        Forget(id);
        ToRouter(gateway.id(), gateway.instance, Release{{0, id}, request.attempt});
      }
    }
  }

  void Act(Node& node) {
    // Placed work of a node that restarted is gone, and its gateway does not know yet.
    if (Chance(0.1)) ToRouter(node.id(), node.instance, node.hello());
    Report report;
    report.replica = node.name;
    report.epoch = node.instance;
    report.sequence = ++node.reports;
    for (const auto& [id, attempt] : node.active) report.active.push_back({{0, id}, 0});
    ToRouter(node.id(), node.instance, report);
  }

  void Hear(Gateway& gateway, const Message& message) {
    if (std::holds_alternative<Unknown>(message))
      return ToRouter(gateway.id(), gateway.instance, HelloOf(gateway));
    if (const auto* ticket = std::get_if<Ticket>(&message)) {
      Request* request = Current(gateway, ticket->request, ticket->attempt);
      if (request == nullptr) return;
      EXPECT_FALSE(request->refused) << "a ticket after a refusal";
      if (!request->node.empty()) return;
      request->node = ticket->replica;
      request->steps_left = 1 + static_cast<int>(Below(40));
      for (Node& node : nodes_)
        if (node.name == ticket->replica && node.instance == ticket->epoch)
          node.active[ticket->request.low] = ticket->attempt;
    } else if (const auto* refused = std::get_if<Refused>(&message)) {
      Request* request = Current(gateway, refused->request, refused->attempt);
      if (request == nullptr) return;
      EXPECT_TRUE(request->node.empty()) << "a refusal after a ticket";
      request->refused = request->over = true;
    } else if (const auto* lost = std::get_if<Lost>(&message)) {
      Request* request = Current(gateway, lost->request, lost->attempt);
      if (request == nullptr || request->over) return;
      ++lost_;
      Forget(lost->request.low);
      *request = {};
      request->attempt = lost->attempt + 1;
    }
  }

  static Request* Current(Gateway& gateway, const RequestId& id, uint32_t attempt) {
    const auto found = gateway.requests.find(id.low);
    return found == gateway.requests.end() || found->second.attempt != attempt ? nullptr
                                                                               : &found->second;
  }

  void Forget(uint64_t id) {
    for (Node& node : nodes_) node.active.erase(id);
  }

  void CheckCredits() {
    for (const auto& [name, replica] : router_.replicas().all()) {
      uint64_t sequences = 0;
      for (const auto& [request, cost] : replica.tickets) sequences += cost.sequences;
      ASSERT_EQ(sequences, replica.ticket_sequences);
      ASSERT_LE(replica.ticket_sequences, 10U) << name;
      ASSERT_LE(replica.class_sequences[0], 5U) << name;
    }
  }

  static Hello HelloOf(const Gateway& gateway) {
    Hello hello;
    hello.name = gateway.name;
    return hello;
  }
  static Place PlaceOf(uint64_t id, uint32_t attempt) {
    Place place;
    place.request = {0, id};
    place.attempt = attempt;
    place.model = "m";
    place.prompt_tokens = 10;
    place.max_tokens = 10;
    place.timeout_us = id % 3 == 0 ? 500'000 : 0;
    place.request_class = static_cast<RequestClass>(id % 3);
    return place;
  }

  std::mt19937 random_;
  Router router_{"s0", {"m"}, {.waiting_max = 8}};
  std::vector<Gateway> gateways_;
  std::vector<Node> nodes_;
  std::deque<Flying> to_router_;
  std::deque<Flying> to_peers_;
  int64_t now_us_ = 1'000'000'000;
  uint64_t last_request_ = 0;
  bool faults_ = false;
  bool asking_ = true;
  int finished_ = 0;
  int lost_ = 0;
};

TEST(RouterPropertyTest, EveryAttemptIsAnsweredOnceAndNoCreditLeaks) {
  int lost = 0;
  for (uint32_t seed = 1; seed <= testing::SeedCount(60); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(seed);
    world.Run(400, true);
    world.StopAsking();
    world.Run(800, false);
    world.ExpectSettled();
    lost += world.lost();
    if (HasFailure()) return;
  }
  EXPECT_GT(lost, 10) << "the faults must have happened";
}

}  // namespace
}  // namespace muselet
