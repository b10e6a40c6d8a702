#include "node/simulate/node_actor.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace muselet {
namespace {

constexpr int kCacheMessagesMax = 4;  // at once, to one scheduler

NodeAdmissionOptions AdmissionOptions(const NodeActorOptions& options, uint64_t epoch) {
  NodeAdmissionOptions result;
  result.node = options.node;
  result.replica = options.replica;
  result.epoch = epoch;
  result.peer_timeout_us = options.timing.timeout_us;
  result.sequences_max =
      size_t{options.engine.batch.sequences_max} + options.engine.batch.waiting_max;
  return result;
}

}  // namespace

NodeActor::NodeActor(SimNetwork& network, const SimSelf& self, const NodeActorOptions& options)
    : network_(network),
      self_(self),
      options_(options),
      sender_(options.node + "/" + options.replica),
      epoch_(static_cast<uint64_t>(network.world().now_us()) + 1),
      admission_(AdmissionOptions(options, epoch_)),
      replica_(network.world(), self.process, options.engine,
               [this](std::vector<TokenUpdate> updates) { OnUpdates(std::move(updates)); }),
      cache_feed_(options.replica, epoch_) {
  replica_.batcher().RecordCacheChanges();
}

Hello NodeActor::MakeHello() const {
  ReplicaInfo info;
  info.replica = options_.replica;
  info.model = options_.model;
  info.numerics_id = "simulated";
  info.endpoint = options_.endpoint;
  info.epoch = epoch_;
  info.context_tokens = replica_.batcher().context_tokens();
  info.kv_tokens = uint64_t{options_.engine.block_count} * options_.engine.block_tokens;
  info.sequences_max = options_.engine.batch.sequences_max;
  Hello hello;
  hello.role = Role::kNode;
  hello.name = sender_;
  hello.replicas = {std::move(info)};
  return hello;
}

void NodeActor::Start() {
  for (const std::string& endpoint : options_.schedulers) {
    links_.push_back({endpoint, network_.Find(endpoint),
                      ClientSession(MakeHello(), options_.timing, /*sends_heartbeats=*/false)});
    cache_feed_.AddReader();
  }
  Tick();
}

void NodeActor::OnMessage(const std::string& peer, Envelope envelope) {
  const SimProcess process = network_.ProcessOf(peer);
  for (Link& link : links_) {
    if (link.process == process) return Apply(link, link.session.OnEnvelope(envelope, now_us()));
  }
  Deliver(admission_.OnMessage(peer, std::move(envelope), now_us()));
}

void NodeActor::OnDisconnect(SimProcess peer) {
  for (Link& link : links_)
    if (link.process == peer) Apply(link, link.session.OnUnreachable());
}

void NodeActor::Apply(Link& link, ClientSession::Step step) {
  if (!step.events.empty()) link.cache_told = false;
  for (Message& message : step.send) Send(link, std::move(message));
}

bool NodeActor::Send(Link& link, Message message) {
  const Status sent = network_.Connect(self_, sender_, link.endpoint, std::move(message));
  if (sent.code() == StatusCode::kUnavailable) Apply(link, link.session.OnUnreachable());
  return sent.ok();
}

void NodeActor::Deliver(NodeAdmissionOutput output) {
  while (true) {
    for (StepCommand& command : output.commands) {
      if (const auto* cancel = std::get_if<Cancel>(&command)) {
        replica_.Cancel(cancel->sequence, cancel->attempt);
      } else {
        replica_.Admit(std::move(std::get<Submit>(command)));
      }
    }
    NodeAdmissionOutput next;
    for (auto& [connection, message] : output.messages) {
      if (network_.Answer(self_, options_.node, connection, message).ok()) continue;
      NodeAdmissionOutput ended = admission_.OnSendFailed(message);
      std::move(ended.commands.begin(), ended.commands.end(), std::back_inserter(next.commands));
    }
    if (next.commands.empty()) break;
    output = std::move(next);
  }
}

// As the step thread hands them over: after whatever is going on.
void NodeActor::OnUpdates(std::vector<TokenUpdate> updates) {
  network_.world().After(self_.process, 0, [this, updates = std::move(updates)]() mutable {
    Deliver(admission_.OnUpdates(std::move(updates), now_us()));
  });
}

void NodeActor::Tick() {
  network_.world().After(self_.process, TickIntervalUs(options_.timing), [this] { Tick(); });
  Deliver(admission_.OnTick(now_us()));
  for (Link& link : links_) Apply(link, link.session.OnTick(now_us()));
  const bool idle = admission_.sequence_count() == 0 && replica_.steps() == reported_steps_;
  const int64_t interval_us =
      idle ? options_.idle_report_us : options_.timing.heartbeat_interval_us;
  if (now_us() - last_report_us_ >= interval_us - TickIntervalUs(options_.timing) / 2)
    SendReports();
}

void NodeActor::SendReports() {
  last_report_us_ = now_us();
  reported_steps_ = replica_.steps();
  const Report report = MakeReport();
  for (Link& link : links_)
    if (link.session.joined()) Send(link, report);
  SendCacheEvents();
}

void NodeActor::SendCacheEvents() {
  PrefixChanges changes;
  replica_.batcher().TakeCacheChanges(&changes);
  cache_feed_.Apply(changes);
  for (size_t i = 0; i < links_.size(); ++i) {
    if (!links_[i].session.joined()) {
      cache_feed_.End(i);
      continue;
    }
    if (!std::exchange(links_[i].cache_told, true)) cache_feed_.Begin(i);
    for (int sent = 0; sent < kCacheMessagesMax; ++sent) {
      const std::optional<CacheEvents> events = cache_feed_.Next(i);
      if (!events || !links_[i].session.joined() || !Send(links_[i], *events)) break;
      cache_feed_.Sent(i);
    }
  }
}

Report NodeActor::MakeReport() {
  Report report;
  report.replica = options_.replica;
  report.epoch = epoch_;
  report.sequence = ++report_sequence_;
  report.steps = replica_.steps();
  report.step_us = replica_.step_us();
  report.running = replica_.batcher().running_count();
  report.waiting = replica_.batcher().waiting_count();
  report.kv_blocks_used = replica_.batcher().cache().held_count();
  report.kv_blocks_total = replica_.batcher().cache().block_count();
  report.draining = admission_.draining();
  report.active = admission_.ActiveSequences();
  const PrefillForecast prefill = replica_.batcher().ForecastPrefill();
  report.prefill_tokens = prefill.tokens;
  report.prefill_token_us = prefill.token_us;
  for (const auto& [surface, tokens] : replica_.batcher().served())
    report.served.push_back({surface, tokens});
  report.schedulers = static_cast<uint32_t>(std::count_if(
      links_.begin(), links_.end(), [](const Link& link) { return link.session.joined(); }));
  return report;
}

void NodeActor::Drain() {
  admission_.StartDraining();
  SendReports();
}

void NodeActor::SayGoodbye() {
  for (Link& link : links_)
    if (link.session.joined()) Send(link, Goodbye{"stopped"});
  for (auto& [connection, goodbye] : admission_.Farewell().messages)
    (void)network_.Answer(self_, options_.node, connection, std::move(goodbye));
}

}  // namespace muselet
