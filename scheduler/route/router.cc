#include "scheduler/route/router.h"

#include <algorithm>
#include <set>
#include <utility>

namespace muselet {
namespace {

constexpr int64_t kTableRepeatUs = 2'000'000;  // a gateway that missed a change sees it then
constexpr int64_t kClosedKeptUs = 30'000'000;  // how late a copy of a message may be
constexpr size_t kObservationsMax = 100'000;   // events and queue times that nobody takes

std::string JoinNames(const std::vector<ModelState>& models) {
  std::string text;
  for (const ModelState& model : models) text += (text.empty() ? "" : ", ") + model.model;
  return text.empty() ? "none" : text;
}

std::string NameOf(const PeerTable::Event& event) {
  return event.peer.hello.name;
}

}  // namespace

Router::Router(std::string name, std::vector<std::string> models, const RouteOptions& options,
               std::vector<SurfaceOptions> surfaces)
    : name_(std::move(name)),
      configured_models_(std::move(models)),
      options_(options),
      surfaces_(std::move(surfaces)),
      peers_(name_, {options.heartbeat_interval_us, options.peer_timeout_us}) {
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
  RefreshModelTable();
  DispatchAll();
  ExpireWaiting();
  requests_.ForgetClosedBefore(now_us - kClosedKeptUs);
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
  }
}

// --- peers ---

void Router::HandlePeerStep(PeerTable::Step& step) {
  for (const PeerTable::Event& event : step.events) OnPeerEvent(event);
  for (Outgoing& outgoing : step.send) out_.push_back(std::move(outgoing));
}

void Router::OnPeerEvent(const PeerTable::Event& event) {
  using Kind = PeerTable::Event::Kind;
  const bool lost = event.kind == Kind::kLost;
  const bool joined = event.kind == Kind::kJoined;
  if (lost) ++(event.on_purpose ? counts_.peers_left : counts_.peers_lost);
  const auto gone = [&](RouteEvent::Kind left_kind, RouteEvent::Kind lost_kind) {
    events_.push_back({event.on_purpose ? left_kind : lost_kind, NameOf(event), event.reason});
  };
  if (event.peer.hello.role == Role::kNode) {
    if (joined)
      events_.push_back(
          {RouteEvent::Kind::kNodeJoined, NameOf(event), event.peer.hello.software_version});
    if (lost) gone(RouteEvent::Kind::kNodeLeft, RouteEvent::Kind::kNodeLost);
    SyncReplicas(event.peer.id, lost ? std::vector<ReplicaInfo>() : event.peer.hello.replicas,
                 event.on_purpose);
  } else if (event.peer.hello.role == Role::kGateway) {
    if (joined)
      events_.push_back(
          {RouteEvent::Kind::kGatewayJoined, NameOf(event), event.peer.hello.software_version});
    if (lost) {
      gone(RouteEvent::Kind::kGatewayLeft, RouteEvent::Kind::kGatewayLost);
      DropGateway(event.peer.id);
    } else {
      Send(event.peer.id, table_);
    }
  }
}

void Router::DropGateway(const std::string& gateway) {
  std::vector<RequestId> gone;
  for (const auto& [request, open] : requests_.open())
    if (open.gateway == gateway) gone.push_back(request);
  for (const RequestId& request : gone) {
    FreeTicket(*requests_.Find(request));
    requests_.Drop(request);
  }
  DispatchAll();
}

// --- replicas ---

void Router::SyncReplicas(const std::string& node, const std::vector<ReplicaInfo>& announced,
                          bool on_purpose) {
  for (const std::string& name : replicas_.Withdrawn(node, announced)) {
    const std::string reason = on_purpose ? " left in order" : " is gone or was formed anew";
    LoseTickets(*replicas_.Find(name), "replica " + name + reason, on_purpose);
    replicas_.Remove(name);
  }
  replicas_.Announce(node, announced);
  table_dirty_ = true;
}

void Router::LoseTickets(Replica& replica, const std::string& reason, bool on_purpose) {
  const auto tickets = std::exchange(replica.tickets, {});
  replica.ticket_sequences = 0;
  replica.ticket_tokens = 0;
  for (const auto& [request, cost] : tickets) {
    const OpenRequest& open = *requests_.Find(request);
    const Lost lost{request, open.place.attempt, reason, false};
    Send(open.gateway, lost);
    requests_.Close(request, lost, now_us_);
  }
  counts_.losses += tickets.size();
  if (replica.reported) {
    const auto kind = on_purpose ? RouteEvent::Kind::kReplicaLeft : RouteEvent::Kind::kReplicaLost;
    events_.push_back({kind, replica.info.replica, reason, tickets.size()});
  }
  replica.reported = false;
  table_dirty_ = true;
}

void Router::LoseSilentReplicas() {
  for (const std::string& name : replicas_.SilentSince(now_us_ - options_.peer_timeout_us))
    LoseTickets(*replicas_.Find(name), "replica " + name + " stopped reporting");
}

void Router::OnReport(const std::string& node, const Report& report) {
  const Replica* before = replicas_.Find(report.replica);
  const bool was_ready = before != nullptr && before->ready();
  const bool was_reported = before != nullptr && before->reported;
  switch (replicas_.TakeReport(node, report, now_us_)) {
    case ReplicaTable::ReportResult::kStale:
      return;
    case ReplicaTable::ReportResult::kUnknown:
      return Send(node, Unknown{});
    case ReplicaTable::ReportResult::kTaken:
      break;
  }
  Replica& replica = *replicas_.Find(report.replica);
  table_dirty_ = table_dirty_ || replica.ready() != was_ready;
  if (!was_reported)
    events_.push_back({RouteEvent::Kind::kReplicaReady, report.replica, replica.info.model});
  for (const auto& [request, sequences] : replica.active) {
    OpenRequest* open = requests_.Find(request);
    if (open == nullptr || open->place.model != replica.info.model) continue;
    // The node knows best where a request runs.
    const Replica* holder = open->placed() ? replicas_.Find(open->replica) : nullptr;
    const bool elsewhere = holder != nullptr && holder->active.contains(request);
    if (open->may_run && open->replica != replica.info.replica && !elsewhere)
      Assign(*open, replica);
    if (open->replica == replica.info.replica) open->seen_us = now_us_;
  }
  Dispatch(replica.info.model);
}

Replica* Router::HolderOf(const Place& place) {
  for (Replica* replica : replicas_.OfModel(place.model)) {
    if (replica->reported && replica->active.contains(place.request) &&
        !replica->tickets.contains(place.request))
      return replica;
  }
  return nullptr;
}

// --- requests ---

void Router::OnPlace(const std::string& gateway, const Place& place) {
  if (OpenRequest* open = requests_.Find(place.request)) {
    if (place.attempt < open->place.attempt) return;
    if (place.attempt == open->place.attempt) {
      open->gateway = gateway;
      open->seen_us = now_us_;
      if (open->placed()) SendTicket(*open);
      return;
    }
    FreeTicket(*open);
    std::string failed = open->replica;
    requests_.Drop(place.request);
    return Admit(gateway, place, false, std::move(failed));
  }
  const RequestTable::Closed* closed = requests_.FindClosed(place.request);
  if (closed != nullptr && closed->attempt >= place.attempt) {
    if (closed->attempt == place.attempt && closed->answer) Send(gateway, *closed->answer);
    return;
  }
  // After an earlier attempt that ended, what still runs under this id is not ours to continue.
  Replica* holder = closed == nullptr ? HolderOf(place) : nullptr;
  if (holder != nullptr) return Assign(requests_.Open(gateway, place, now_us_), *holder);
  Admit(gateway, place, closed == nullptr, closed == nullptr ? "" : closed->replica);
}

void Router::Admit(const std::string& gateway, const Place& place, bool may_run,
                   std::string failed) {
  const Status admissible = CheckAdmissible(place);
  if (!admissible.ok()) {
    Refuse(gateway, place, admissible);
    return requests_.RememberClosed(place.request, place.attempt, out_.back().message, now_us_);
  }
  OpenRequest& open = requests_.Open(gateway, place, now_us_);
  open.may_run = may_run;
  open.failed = std::move(failed);
  Dispatch(place.model);
}

Status Router::CheckAdmissible(const Place& place) {
  if (!KnowsModel(place.model)) {
    return NotFound("model '" + place.model +
                    "' does not exist; this cluster serves: " + JoinNames(table_.models));
  }
  RETURN_IF_ERROR(CheckFits(place));
  if (requests_.waiting_count() >= options_.waiting_max) {
    return ResourceExhausted(std::to_string(requests_.waiting_count()) +
                             " requests wait already: the line is full");
  }
  return OkStatus();
}

Status Router::CheckFits(const Place& place) {
  uint32_t context_max = 0;
  bool fits = false;
  bool any = false;
  for (const Replica* replica : replicas_.OfModel(place.model)) {
    any = any || replica->ready();
    fits = fits || replica->Fits(place.prompt_tokens);
    context_max = std::max(context_max, replica->info.context_tokens);
  }
  if (any && !fits) {
    return InvalidArgument("the prompt has " + std::to_string(place.prompt_tokens) +
                           " tokens, model '" + place.model + "' takes " +
                           std::to_string(context_max) + ", the answer included");
  }
  return OkStatus();
}

void Router::OnRelease(const Release& release) {
  OpenRequest* open = requests_.Find(release.request);
  if (open == nullptr) {
    // It may have overtaken its Place.
    const RequestTable::Closed* closed = requests_.FindClosed(release.request);
    if (closed == nullptr || closed->attempt < release.attempt)
      requests_.RememberClosed(release.request, release.attempt, {}, now_us_);
    return;
  }
  if (open->place.attempt > release.attempt) return;
  open->place.attempt = release.attempt;
  const std::string model = open->place.model;
  FreeTicket(*open);
  requests_.Close(release.request, {}, now_us_);
  Dispatch(model);
}

void Router::Dispatch(const std::string& model) {
  while (OpenRequest* open = requests_.FirstWaiting(model)) {
    Replica* replica = ChooseReplica(replicas_.OfModel(model), open->place, open->failed);
    if (replica != nullptr) {
      Assign(*open, *replica);
      continue;
    }
    const Status fits = CheckFits(open->place);
    if (fits.ok()) return;
    RefuseOpen(RequestId(open->place.request), fits);
  }
}

void Router::DispatchAll() {
  for (const std::string& model : requests_.WaitingModels()) Dispatch(model);
}

void Router::Assign(OpenRequest& open, Replica& replica) {
  if (open.placed()) {
    FreeTicket(open);
  } else {
    ++counts_.tickets;
    if (queue_times_us_.size() < kObservationsMax)
      queue_times_us_.push_back(now_us_ - open.arrived_us);
  }
  requests_.MarkPlaced(open, replica, now_us_);
  replica.AddTicket(open.place.request, open.cost());
  SendTicket(open);
}

void Router::SendTicket(const OpenRequest& open) {
  const Replica* replica = replicas_.Find(open.replica);
  if (replica == nullptr) return;
  Send(open.gateway, Ticket{open.place.request, open.place.attempt, open.replica,
                            replica->info.endpoint, open.epoch});
}

void Router::FreeTicket(const OpenRequest& open) {
  if (Replica* replica = open.placed() ? replicas_.Find(open.replica) : nullptr)
    replica->RemoveTicket(open.place.request);
}

void Router::Refuse(const std::string& gateway, const Place& place, const Status& why) {
  const bool later =
      why.code() == StatusCode::kResourceExhausted || why.code() == StatusCode::kUnavailable;
  Send(gateway, Refused{place.request, place.attempt, why.code(), why.message(),
                        later ? options_.retry_after_us : 0});
  ++counts_.refusals;
}

void Router::RefuseOpen(const RequestId& request, const Status& why) {
  const OpenRequest& open = *requests_.Find(request);
  Refuse(open.gateway, open.place, why);
  requests_.Close(request, out_.back().message, now_us_);
}

void Router::ExpireWaiting() {
  std::vector<std::pair<RequestId, Status>> over;
  for (const auto& [request, open] : requests_.open()) {
    if (open.placed()) continue;
    if (open.deadline_us != 0 && now_us_ >= open.deadline_us) {
      over.emplace_back(request, DeadlineExceeded("the request's time was over before a replica "
                                                  "of model '" +
                                                  open.place.model + "' was free"));
      continue;
    }
    const auto ready = last_ready_us_.find(open.place.model);
    const int64_t since =
        std::max(open.arrived_us, ready == last_ready_us_.end() ? 0 : ready->second);
    if (now_us_ - since >= options_.place_timeout_us) {
      over.emplace_back(request,
                        Unavailable("no replica of model '" + open.place.model + "' is ready"));
    }
  }
  for (const auto& [request, why] : over) RefuseOpen(request, why);
}

void Router::ExpireLeases() {
  std::vector<RequestId> over;
  for (const auto& [request, open] : requests_.open())
    if (open.placed() && now_us_ - open.seen_us > options_.ticket_lease_us) over.push_back(request);
  for (const RequestId& request : over) {
    FreeTicket(*requests_.Find(request));
    requests_.Drop(request);
  }
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
  for (const auto& [id, peer] : peers_.peers())
    ++(peer.hello.role == Role::kNode ? counts.nodes : counts.gateways);
  return counts;
}

std::vector<RouteEvent> Router::TakeEvents() {
  return std::exchange(events_, {});
}

std::vector<int64_t> Router::TakeQueueTimesUs() {
  return std::exchange(queue_times_us_, {});
}

}  // namespace muselet
