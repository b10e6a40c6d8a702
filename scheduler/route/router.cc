#include "scheduler/route/router.h"

#include <algorithm>
#include <utility>

namespace muselet {
namespace {

constexpr int64_t kTableRepeatUs = 2'000'000;  // a gateway that missed a change sees it then
constexpr int64_t kClosedKeptUs = 30'000'000;  // how late a copy of a message may be
constexpr size_t kObservationsMax = 100'000;   // events that nobody takes

std::string NameOf(const PeerTable::Event& event) {
  return event.peer.hello.name;
}

}  // namespace

Router::Router(std::string name, std::vector<std::string> models, const RouteOptions& options,
               const std::vector<SurfaceOptions>& surfaces)
    : name_(std::move(name)),
      configured_models_(std::move(models)),
      options_(options),
      peers_(name_, {options.heartbeat_interval_us, options.peer_timeout_us}),
      replicas_(options.prefix_blocks_max),
      ledger_(surfaces),
      requests_(ledger_),
      chooser_(options) {
  RefreshModelTable();
  out_.clear();
}

std::vector<Outgoing> Router::OnMessage(const std::string& peer, const Envelope& envelope,
                                        int64_t now_us) {
  now_us_ = now_us;
  PeerTable::Step step = peers_.OnEnvelope(peer, envelope, now_us);
  HandlePeerStep(step);
  if (step.known) Handle(peer, envelope.body);
  return Finish();
}

std::vector<Outgoing> Router::OnTick(int64_t now_us) {
  now_us_ = now_us;
  PeerTable::Step step = peers_.OnTick(now_us);
  HandlePeerStep(step);
  const bool stuck = WasStuck(std::exchange(last_tick_us_, now_us), now_us,
                              {options_.heartbeat_interval_us, options_.peer_timeout_us});
  if (stuck) replicas_.CountSilenceFrom(now_us);
  LoseSilentReplicas();
  ExpireLeases();
  EndEjections();
  FreeReservations();
  ledger_.SetSchedulerCount(replicas_.SchedulerCount());
  RefreshModelTable();
  DispatchAll();
  ExpireWaiting();
  requests_.ForgetClosedBefore(now_us - kClosedKeptUs);
  replicas_.SweepIndex();
  if (now_us >= next_table_us_) {
    next_table_us_ = now_us + kTableRepeatUs;
    for (const auto& [id, peer] : peers_.peers())
      if (peer.hello.role == Role::kGateway) Send(id, table_);
  }
  return Finish();
}

std::vector<Outgoing> Router::OnUnreachable(const std::string& peer, int64_t now_us) {
  now_us_ = now_us;
  PeerTable::Step step = peers_.OnUnreachable(peer, now_us);
  HandlePeerStep(step);
  return Finish();
}

std::vector<Outgoing> Router::Farewell() {
  for (const auto& [id, peer] : peers_.peers()) Send(id, Goodbye{"the scheduler stops"});
  return std::exchange(out_, {});
}

std::vector<Outgoing> Router::Finish() {
  if (table_dirty_) RefreshModelTable();
  return std::exchange(out_, {});
}

void Router::Handle(const std::string& peer, const Message& body) {
  const Role role = peers_.Find(peer)->hello.role;
  if (role == Role::kGateway) {
    if (const auto* place = std::get_if<Place>(&body)) OnPlace(peer, *place);
    if (const auto* release = std::get_if<Release>(&body)) OnRelease(*release);
  } else if (role == Role::kNode) {
    if (const auto* report = std::get_if<Report>(&body)) OnReport(peer, *report);
    if (const auto* events = std::get_if<CacheEvents>(&body)) OnCacheEvents(peer, *events);
  } else if (role == Role::kOperator) {
    if (const auto* drain = std::get_if<Drain>(&body)) OnDrain(peer, *drain);
  }
}

// --- peers ---

void Router::AddEvent(RouteEvent event) {
  if (events_.size() < kObservationsMax) events_.push_back(std::move(event));
}

void Router::HandlePeerStep(PeerTable::Step& step) {
  for (const PeerTable::Event& event : step.events) OnPeerEvent(event);
  for (Outgoing& outgoing : step.send) out_.push_back(std::move(outgoing));
}

void Router::OnPeerEvent(const PeerTable::Event& event) {
  using Kind = PeerTable::Event::Kind;
  const Role role = event.peer.hello.role;
  if (role != Role::kNode && role != Role::kGateway) return;
  const bool lost = event.kind == Kind::kLost;
  const bool joined = event.kind == Kind::kJoined;
  if (lost) ++(event.on_purpose ? counts_.peers_left : counts_.peers_lost);
  const auto gone = [&](RouteEvent::Kind left_kind, RouteEvent::Kind lost_kind) {
    AddEvent({event.on_purpose ? left_kind : lost_kind, NameOf(event), event.reason});
  };
  if (role == Role::kNode) {
    if (joined)
      AddEvent({RouteEvent::Kind::kNodeJoined, NameOf(event), event.peer.hello.software_version});
    if (lost) gone(RouteEvent::Kind::kNodeLeft, RouteEvent::Kind::kNodeLost);
    SyncReplicas(event.peer.id, lost ? std::vector<ReplicaInfo>() : event.peer.hello.replicas,
                 event.on_purpose);
    return;
  }
  if (joined)
    AddEvent({RouteEvent::Kind::kGatewayJoined, NameOf(event), event.peer.hello.software_version});
  if (lost) {
    gone(RouteEvent::Kind::kGatewayLeft, RouteEvent::Kind::kGatewayLost);
    DropGateway(event.peer.id);
  } else {
    Send(event.peer.id, table_);
  }
}

void Router::DropGateway(const std::string& gateway) {
  std::vector<RequestId> gone;
  for (const auto& [request, open] : requests_.open())
    if (open.gateway == gateway) gone.push_back(request);
  for (const RequestId& request : gone) {
    FreeTicket(*requests_.Find(request));
    requests_.Drop(request, now_us_);
  }
  DispatchAll();
}

void Router::OnDrain(const std::string& operator_id, const Drain& drain) {
  const PeerTable::Peer* peer = peers_.FindName(Role::kNode, drain.name);
  if (peer == nullptr) peer = peers_.FindName(Role::kGateway, drain.name);
  // A node has a connection for each replica, NODE/REPLICA; any of them will do.
  for (const auto& [id, other] : peers_.peers()) {
    const bool replica_of_it =
        other.hello.role == Role::kNode && other.hello.name.starts_with(drain.name + "/");
    if (peer == nullptr && replica_of_it) peer = &other;
  }
  if (peer == nullptr && drain.name == name_) {
    AddEvent({RouteEvent::Kind::kDrainAsked, drain.name, peers_.Find(operator_id)->hello.name});
    return Send(operator_id, DrainAnswer{drain.name, true, ""});
  }
  if (peer != nullptr) {
    Send(peer->id, drain);
    AddEvent({RouteEvent::Kind::kDrainAsked, drain.name, peers_.Find(operator_id)->hello.name});
    return Send(operator_id, DrainAnswer{drain.name, true, ""});
  }
  std::string known;
  for (const auto& [id, other] : peers_.peers())
    if (other.hello.role == Role::kNode || other.hello.role == Role::kGateway)
      known += (known.empty() ? "" : ", ") + other.hello.name;
  Send(operator_id, DrainAnswer{drain.name, false, known.empty() ? "nobody is here" : known});
}

// --- models ---

bool Router::KnowsModel(const std::string& model) const {
  return std::any_of(table_.models.begin(), table_.models.end(),
                     [&](const ModelState& state) { return state.model == model; });
}

uint32_t Router::ReplicasReady(std::string_view model) const {
  for (const ModelState& state : table_.models)
    if (state.model == model) return state.replicas_ready;
  return 0;
}

void Router::RefreshModelTable() {
  table_dirty_ = false;
  std::map<std::string, ModelState> states;
  for (const std::string& model : configured_models_) states[model].model = model;
  for (const auto& [name, replica] : replicas_.all()) {
    ModelState& state = states[replica.info.model];
    state.model = replica.info.model;
    if (!replica.ready()) continue;
    if (state.replicas_ready == 0) state.numerics_id = replica.info.numerics_id;
    const uint32_t context = replica.info.context_tokens;
    state.context_tokens =
        state.replicas_ready == 0 ? context : std::min(state.context_tokens, context);
    ++state.replicas_ready;
    last_ready_us_[state.model] = now_us_;
  }
  std::vector<ModelState> models;
  for (auto& [model, state] : states) models.push_back(std::move(state));
  if (models == table_.models) return;
  table_.models = std::move(models);
  for (const auto& [id, peer] : peers_.peers())
    if (peer.hello.role == Role::kGateway) Send(id, table_);
}

RouteCounts Router::counts() const {
  RouteCounts counts = counts_;
  counts.waiting = requests_.waiting_count();
  counts.placed = requests_.placed_count();
  counts.prefix_blocks = replicas_.index().block_count();
  counts.prefix_bytes = replicas_.index().MemoryBytes();
  for (const auto& [id, peer] : peers_.peers()) {
    if (peer.hello.role == Role::kNode) ++counts.nodes;
    if (peer.hello.role == Role::kGateway) ++counts.gateways;
  }
  return counts;
}

std::vector<SurfaceCounts> Router::surface_counts() const {
  std::vector<SurfaceCounts> all = surface_counts_;
  all.resize(ledger_.size());
  for (SurfaceId surface = 0; surface < ledger_.size(); ++surface) {
    all[surface].surface = ledger_.options(surface).name;
    for (size_t i = 0; i < all[surface].waiting.size(); ++i)
      all[surface].waiting[i] = ledger_.waiting(surface, static_cast<RequestClass>(i));
  }
  return all;
}

std::vector<RouteEvent> Router::TakeEvents() {
  return std::exchange(events_, {});
}

std::vector<int64_t> Router::TakeQueueTimesUs() {
  return std::exchange(queue_times_us_, {});
}

}  // namespace muselet
