#include "node/simulate/gateway_actor.h"

#include <algorithm>
#include <utility>

namespace muselet {
namespace {

constexpr int64_t kUnusedMaxUs = 30'000'000;

RequestOwnerOptions OwnerOptions(const GatewayActorOptions& options) {
  RequestOwnerOptions owner = options.owner;
  owner.schedulers = static_cast<uint32_t>(options.schedulers.size());
  return owner;
}

bool IsHandshake(const Message& message) {
  return std::holds_alternative<Welcome>(message) || std::holds_alternative<Heartbeat>(message);
}

}  // namespace

GatewayActor::GatewayActor(SimNetwork& network, const SimSelf& self,
                           const GatewayActorOptions& options, Listener listener)
    : network_(network),
      self_(self),
      options_(options),
      listener_(std::move(listener)),
      owner_(OwnerOptions(options)) {}

Hello GatewayActor::MakeHello() const {
  Hello hello;
  hello.role = Role::kGateway;
  hello.name = options_.name;
  return hello;
}

void GatewayActor::Start() {
  for (const std::string& endpoint : options_.schedulers) {
    schedulers_.push_back(
        {network_.Find(endpoint), ClientSession(MakeHello(), options_.timing), {}});
  }
  Tick();
}

void GatewayActor::Tick() {
  network_.world().After(self_.process, options_.tick_us, [this] { Tick(); });
  driving_ = true;  // what the links notice waits until they are done
  for (uint32_t i = 0; i < schedulers_.size(); ++i)
    ApplyScheduler(i, schedulers_[i].session.OnTick(now_us()));
  TickNodes();
  driving_ = false;
  Drive(OwnerTick{});
}

void GatewayActor::OnMessage(const std::string& peer, Envelope envelope) {
  const SimProcess process = network_.ProcessOf(peer);
  for (uint32_t i = 0; i < schedulers_.size(); ++i) {
    if (schedulers_[i].process != process) continue;
    ClientSession::Step step = schedulers_[i].session.OnEnvelope(envelope, now_us());
    const bool for_owner = step.known && !IsHandshake(envelope.body);
    ApplyScheduler(i, std::move(step));
    if (for_owner) FromSchedulerMessage(i, std::move(envelope.body));
    return;
  }
  const auto known = endpoints_.find(process);
  if (known == endpoints_.end()) return;
  const std::string& endpoint = known->second;
  ClientSession::Step step = nodes_.at(endpoint).session.OnEnvelope(envelope, now_us());
  const bool for_owner = step.known && !IsHandshake(envelope.body);
  ApplyNode(endpoint, std::move(step));
  if (for_owner) Drive(FromNode{endpoint, std::move(envelope.body)});
}

void GatewayActor::OnDisconnect(SimProcess peer) {
  for (uint32_t i = 0; i < schedulers_.size(); ++i) {
    if (schedulers_[i].process == peer) ApplyScheduler(i, schedulers_[i].session.OnUnreachable());
  }
  if (const auto known = endpoints_.find(peer); known != endpoints_.end())
    ApplyNode(known->second, nodes_.at(known->second).session.OnUnreachable());
}

void GatewayActor::SayGoodbye() {
  for (uint32_t i = 0; i < schedulers_.size(); ++i) SendToScheduler(i, Goodbye{"leaves"});
  for (auto& [endpoint, node] : nodes_) {
    if (node.session.joined())
      (void)network_.Connect(self_, options_.name, endpoint, Goodbye{"leaves"});
  }
}

bool GatewayActor::ready() const {
  return std::all_of(options_.models.begin(), options_.models.end(), [&](const auto& model) {
    return std::any_of(schedulers_.begin(), schedulers_.end(), [&](const Scheduler& scheduler) {
      return scheduler.session.joined() &&
             std::any_of(scheduler.table.begin(), scheduler.table.end(),
                         [&](const ModelState& state) {
                           return state.model == model && state.replicas_ready > 0;
                         });
    });
  });
}

// --- the owner ---

void GatewayActor::Drive(OwnerInput input) {
  pending_.push_back(std::move(input));
  if (driving_) return;
  driving_ = true;
  while (!pending_.empty()) {
    OwnerOutput output = owner_.Step(std::move(pending_.front()), now_us());
    pending_.pop_front();
    for (ToScheduler& out : output.to_schedulers)
      SendToScheduler(out.scheduler, std::move(out.message));
    for (ToNode& out : output.to_nodes) SendToNode(out.endpoint, std::move(out.message));
    for (const OwnerEvent& event : output.events) listener_(event);
  }
  driving_ = false;
}

// --- schedulers ---

void GatewayActor::SendToScheduler(uint32_t index, Message message) {
  if (!schedulers_[index].session.joined()) return;
  const Status sent =
      network_.Connect(self_, options_.name, options_.schedulers[index], std::move(message));
  if (sent.code() == StatusCode::kUnavailable)
    ApplyScheduler(index, schedulers_[index].session.OnUnreachable());
}

void GatewayActor::ApplyScheduler(uint32_t index, ClientSession::Step step) {
  for (const ClientSession::Event& event : step.events) {
    if (event.kind == ClientSession::Event::Kind::kJoined) {
      Drive(SchedulerUp{index});
    } else {
      schedulers_[index].table.clear();
      TellReplicas();
      Drive(SchedulerDown{index});
    }
  }
  for (Message& message : step.send) {
    const Status sent =
        network_.Connect(self_, options_.name, options_.schedulers[index], std::move(message));
    if (sent.code() == StatusCode::kUnavailable)
      ApplyScheduler(index, schedulers_[index].session.OnUnreachable());
  }
}

void GatewayActor::FromSchedulerMessage(uint32_t index, Message message) {
  if (auto* table = std::get_if<ModelTable>(&message)) {
    schedulers_[index].table = std::move(table->models);
    TellReplicas();
  } else {
    Drive(FromScheduler{index, std::move(message)});
  }
}

void GatewayActor::TellReplicas() {
  for (const std::string& model : options_.models) {
    std::optional<uint32_t> most;
    for (const Scheduler& scheduler : schedulers_) {
      for (const ModelState& state : scheduler.table)
        if (state.model == model) most = std::max(most.value_or(0), state.replicas_ready);
    }
    if (most) Drive(ReplicasReady{model, *most});
  }
}

// --- nodes ---

void GatewayActor::SendToNode(const std::string& endpoint, Message message) {
  const bool only_cancel = std::holds_alternative<Cancel>(message);
  auto found = nodes_.find(endpoint);
  if (found == nodes_.end()) {
    if (only_cancel) return;
    found = nodes_
                .emplace(endpoint, Node{network_.Find(endpoint),
                                        ClientSession(MakeHello(), options_.timing),
                                        {},
                                        0,
                                        now_us()})
                .first;
    endpoints_[found->second.process] = endpoint;
    ApplyNode(endpoint, found->second.session.OnTick(now_us()));
  }
  Node& node = found->second;
  if (only_cancel && !node.session.joined() && node.waiting.empty()) return;
  node.used_us = now_us();
  if (node.waiting.empty()) node.waiting_since_us = node.used_us;
  node.waiting.push_back(std::move(message));
  Flush(endpoint);
}

void GatewayActor::Flush(const std::string& endpoint) {
  Node& node = nodes_.at(endpoint);
  while (!node.waiting.empty() && node.session.joined()) {
    const Status sent = network_.Connect(self_, options_.name, endpoint, node.waiting.front());
    if (sent.code() == StatusCode::kUnavailable)
      return ApplyNode(endpoint, node.session.OnUnreachable());
    if (!sent.ok()) return;  // full: the next tick tries again
    node.waiting.pop_front();
    node.waiting_since_us = now_us();
  }
}

void GatewayActor::ApplyNode(const std::string& endpoint, ClientSession::Step step) {
  Node& node = nodes_.at(endpoint);
  for (const ClientSession::Event& event : step.events) {
    if (event.kind == ClientSession::Event::Kind::kJoined) {
      Flush(endpoint);
    } else {
      node.waiting.clear();
      Drive(NodeLost{endpoint, event.reason});
    }
  }
  for (Message& message : step.send) {
    const Status sent = network_.Connect(self_, options_.name, endpoint, std::move(message));
    if (sent.code() == StatusCode::kUnavailable) ApplyNode(endpoint, node.session.OnUnreachable());
  }
}

void GatewayActor::TickNodes() {
  for (auto entry = nodes_.begin(); entry != nodes_.end();) {
    const std::string& endpoint = entry->first;
    Node& node = entry->second;
    ApplyNode(endpoint, node.session.OnTick(now_us()));
    Flush(endpoint);
    if (!node.waiting.empty() && now_us() - node.waiting_since_us > options_.timing.timeout_us) {
      node.waiting.clear();
      Drive(NodeLost{endpoint, "it is not reachable"});
    }
    const bool unused = node.waiting.empty() && now_us() - node.used_us > kUnusedMaxUs;
    if (unused && owner_.RunningOn(endpoint) == 0) {
      if (node.session.joined())
        (void)network_.Connect(self_, options_.name, endpoint, Goodbye{"leaves"});
      endpoints_.erase(node.process);
      entry = nodes_.erase(entry);
    } else {
      if (unused) node.used_us = now_us();
      ++entry;
    }
  }
}

}  // namespace muselet
