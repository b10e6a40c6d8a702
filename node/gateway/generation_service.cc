#include "node/gateway/generation_service.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "node/gateway/active_request.h"
#include "node/gateway/admission.h"
#include "node/gateway/node_links.h"
#include "node/gateway/peer_link.h"
#include "node/gateway/prompt_text.h"
#include "node/gateway/text_pool.h"
#include "node/text/tokenizer.h"

namespace muselet {
namespace {

constexpr int64_t kTickUs = 25'000;
// Attempts that may follow others of the same name are numbered by quarters of a second since
// 2025, so that later ones have larger numbers on any host.
constexpr int64_t kNumberedSinceUs = 1'735'689'600'000'000;
constexpr int64_t kNumberUs = 250'000;

uint32_t JoinAttempt(int64_t now_unix_us) {
  return static_cast<uint32_t>(std::max<int64_t>(0, now_unix_us - kNumberedSinceUs) / kNumberUs);
}

RequestOwnerOptions OwnerOptions(const GatewayServiceOptions& options) {
  RequestOwnerOptions owner;
  owner.limits = options.gateway.request;
  owner.schedulers = static_cast<uint32_t>(options.schedulers.size());
  owner.audit_fraction = options.gateway.audit_fraction;
  return owner;
}

}  // namespace

Result<std::unique_ptr<GatewayService>> GatewayService::Start(GatewayServiceOptions options,
                                                              const LocalPeer& local,
                                                              EventLoop& loop, WireContext& context,
                                                              const GatewayMetrics& metrics) {
  if (options.schedulers.empty())
    return InvalidArgument("gateway " + options.name + " needs at least one scheduler");
  std::unique_ptr<GatewayService> service(
      new GatewayService(std::move(options), local, loop, context, metrics));
  RETURN_IF_ERROR(service->Connect(local, context));
  return service;
}

GatewayService::GatewayService(GatewayServiceOptions options, const LocalPeer& local,
                               EventLoop& loop, WireContext& context, const GatewayMetrics& metrics)
    : options_(std::move(options)),
      loop_(loop),
      metrics_(metrics),
      owner_(OwnerOptions(options_)),
      audits_(options_.gateway.audits_max),
      tables_(options_.schedulers.size()),
      alive_(std::make_shared<const bool>(true)) {
  const RequestLimits& limits = options_.gateway.request;
  pool_ = std::make_unique<TextPool>(options_.gateway.text_threads, limits.requests_max);
  NodeLinks::Callbacks callbacks;
  callbacks.message = [this](const std::string& endpoint, Message message) {
    Drive(FromNode{endpoint, std::move(message)});
  };
  callbacks.lost = [this](const std::string& endpoint, const std::string& why) {
    Drive(NodeLost{endpoint, why});
  };
  callbacks.in_use = [this](const std::string& endpoint) { return owner_.RunningOn(endpoint) > 0; };
  nodes_ = std::make_unique<NodeLinks>(loop, context, local, LinkOptions(),
                                       size_t{4} * limits.requests_max, std::move(callbacks));
}

GatewayService::~GatewayService() = default;

PeerLinkOptions GatewayService::LinkOptions() const {
  return {options_.name, options_.software_version, options_.gateway.heartbeat_interval_us,
          options_.gateway.peer_timeout_us};
}

Status GatewayService::Connect(const LocalPeer& local, WireContext& context) {
  for (uint32_t i = 0; i < options_.schedulers.size(); ++i) {
    PeerLink::Callbacks callbacks;
    callbacks.up = [this, i, before = std::make_shared<bool>(false)] {
      const bool again = std::exchange(*before, true);
      LogInfo(again ? "reconnected to a scheduler" : "connected to a scheduler",
              {{"endpoint", options_.schedulers[i]}});
      Drive(SchedulerUp{i});
    };
    callbacks.down = [this, i](const std::string& why, bool on_purpose) {
      const LogFields fields = {{"endpoint", options_.schedulers[i]}, {"why", why}};
      if (on_purpose) {
        LogInfo("a scheduler left", fields);
      } else {
        LogWarn("lost a scheduler", fields);
      }
      tables_[i].clear();
      quotas_.Forget(i);
      TellReplicas();
      Drive(SchedulerDown{i});
    };
    callbacks.message = [this, i](Message message) {
      auto* table = std::get_if<ModelTable>(&message);
      if (table != nullptr) {
        tables_[i] = std::move(table->models);
        TellReplicas();
      } else if (const auto* drain = std::get_if<Drain>(&message)) {
        if (drain->name == options_.name && options_.drain_asked) options_.drain_asked();
      } else {
        Drive(FromScheduler{i, std::move(message)});
      }
    };
    ASSIGN_OR_RETURN(auto link, PeerLink::Connect(loop_, context, local, options_.schedulers[i],
                                                  LinkOptions(), std::move(callbacks)));
    schedulers_.push_back(std::move(link));
  }
  timer_ = std::make_unique<PeriodicTimer>(loop_, kTickUs, [this] { Tick(); });
  return OkStatus();
}

// With nothing in flight and everybody connected, only signs of life are due.
void GatewayService::Pace() {
  const bool connected = std::all_of(schedulers_.begin(), schedulers_.end(),
                                     [](const auto& scheduler) { return scheduler->up(); });
  const int64_t idle_us =
      TickIntervalUs({options_.gateway.heartbeat_interval_us, options_.gateway.peer_timeout_us});
  const bool idle = active_.empty() && audits_.size() == 0 && connected;
  if (timer_ != nullptr) timer_->SetInterval(idle ? std::max(idle_us, kTickUs) : kTickUs);
}

void GatewayService::Tick() {
  const int64_t now_us = loop_.NowUs();
  driving_ = true;  // what the links notice waits until they are done
  for (const auto& scheduler : schedulers_) scheduler->Tick(now_us);
  nodes_->Tick(now_us);
  driving_ = false;
  Drive(OwnerTick{});
}

const GatewayModel* GatewayService::FindModel(const std::string& id) const {
  const auto found = std::find_if(options_.models.begin(), options_.models.end(),
                                  [&](const GatewayModel& model) { return model.id == id; });
  return found == options_.models.end() ? nullptr : &*found;
}

// Schedulers see the same nodes; the one that knows most replicas is the best informed.
const ModelState* GatewayService::FindState(const std::string& model) const {
  const ModelState* best = nullptr;
  for (const auto& table : tables_) {
    for (const ModelState& state : table) {
      if (state.model != model) continue;
      if (best == nullptr || state.replicas_ready > best->replicas_ready) best = &state;
    }
  }
  return best;
}

void GatewayService::TellReplicas() {
  for (const GatewayModel& model : options_.models) {
    const ModelState* state = FindState(model.id);
    if (state != nullptr) Drive(ReplicasReady{model.id, state->replicas_ready});
  }
}

std::vector<ServedModel> GatewayService::Models() const {
  std::vector<ServedModel> models;
  for (const GatewayModel& model : options_.models) {
    const ModelState* state = FindState(model.id);
    const ModelLimits limits = LimitsOf(model);
    models.push_back({model.id, limits.context_tokens, state ? state->replicas_ready : 0,
                      limits.has_tokenizer, limits.has_chat_template});
  }
  return models;
}

Status GatewayService::Ready() const {
  const bool connected = std::any_of(schedulers_.begin(), schedulers_.end(),
                                     [](const auto& scheduler) { return scheduler->up(); });
  if (!connected) return Unavailable("no scheduler is connected");
  for (const GatewayModel& model : options_.models) {
    const ModelState* state = FindState(model.id);
    if (state == nullptr || state->replicas_ready == 0)
      return Unavailable("no replica of model " + model.id + " is ready");
  }
  return OkStatus();
}

ModelLimits GatewayService::LimitsOf(const GatewayModel& model) const {
  ModelLimits limits;
  limits.id = model.id;
  limits.context_tokens = model.context_tokens;
  const ModelState* state = FindState(model.id);
  if (state != nullptr && state->context_tokens > 0)
    limits.context_tokens = std::min(limits.context_tokens, state->context_tokens);
  limits.vocab_size = model.vocab_size;
  limits.has_tokenizer = TokenizerOf(model.text.get()) != nullptr;
  limits.has_chat_template = HasChatTemplate(model.text.get());
  limits.end_tokens = model.end_tokens;
  return limits;
}

std::optional<SurfaceOptions> GatewayService::SurfaceOf(const GenerationRequest& request) const {
  SurfaceOptions unnamed;
  unnamed.name = request.surface;
  unnamed.request_class = request.request_class;
  if (options_.surfaces.empty()) return unnamed;
  const auto found =
      std::find_if(options_.surfaces.begin(), options_.surfaces.end(),
                   [&](const SurfaceOptions& surface) { return surface.name == request.surface; });
  if (found == options_.surfaces.end()) return std::nullopt;
  return *found;
}

std::optional<GenerationError> GatewayService::Check(ActiveRequest& active,
                                                     const GatewayModel* model) {
  GenerationRequest& request = active.request;
  const RequestLimits& limits = options_.gateway.request;
  if (model == nullptr) {
    return GenerationError{NotFound("The model '" + request.model + "' does not exist"), "model"};
  }
  const std::optional<SurfaceOptions> surface = SurfaceOf(request);
  if (!surface) {
    return GenerationError{
        PermissionDenied("surface '" + request.surface + "' is not known to this gateway")};
  }
  if (active_.size() > limits.requests_max) {
    return GenerationError{
        ResourceExhausted("too many requests in flight in this gateway; retry later"), "",
        1'000'000};
  }
  if (!request.resume.empty() && request.resume.size() != request.choices) {
    return GenerationError{
        InvalidArgument("Last-Event-ID is of a stream with another number of choices"),
        "Last-Event-ID"};
  }
  LimitThought(*surface, request);
  return CheckRequest(request, LimitsOf(*model), limits);
}

RequestId GatewayService::Start(GenerationRequest request, std::unique_ptr<GenerationSink> sink) {
  // What may run elsewhere under its fixed id has another one here.
  const bool named =
      request.fixed && !request.fixed->may_run && active_.count(request.fixed->id) == 0;
  const RequestId id = named ? request.fixed->id : RequestId::Random();
  const int64_t now_unix_us = request.fixed ? request.fixed->now_unix_us : Clock::Real().UnixUs();
  const GatewayModel* model = FindModel(request.model);
  auto active = std::make_unique<ActiveRequest>(std::move(request), std::move(sink), loop_.NowUs(),
                                                metrics_.model(model ? model->id : "unknown"));
  ActiveRequest& entry = *active;
  active_.emplace(id, std::move(active));
  if (auto error = Check(entry, model)) {
    loop_.Post([this, alive = std::weak_ptr(alive_), id, error = std::move(*error)] {
      if (!alive.expired()) Fail(id, error);
    });
    return id;
  }
  entry.model = model;
  Prepare(*model, std::move(entry.request.prompt), now_unix_us,
          [this, id](Result<PreparedPrompt> prepared) { Admit(id, std::move(prepared)); });
  return id;
}

void GatewayService::Admit(const RequestId& id, Result<PreparedPrompt> prepared) {
  const auto found = active_.find(id);
  if (found == active_.end()) return;  // cancelled meanwhile
  ActiveRequest& active = *found->second;
  if (!prepared.ok()) {
    const bool invalid = prepared.status().code() == StatusCode::kInvalidArgument;
    Fail(id, {prepared.status(), invalid ? active.prompt_param : "", 0});
    return;
  }
  const ModelLimits limits = LimitsOf(*active.model);
  if (auto error =
          CheckLengths(active.prompt_param, prepared->ids.size(), active.request, limits)) {
    Fail(id, std::move(*error));
    return;
  }
  const SurfaceOptions surface = *SurfaceOf(active.request);
  const std::optional<FixedParts>& fixed = active.request.fixed;
  RequestRecord record = MakeRecord(active.request, id, prepared->ids.size(),
                                    fixed ? fixed->seed : RequestId::Random().low, limits, surface,
                                    options_.gateway.request);
  record.cache_salt =
      CacheSalt(options_.secret ? &*options_.secret : nullptr, options_.cluster, surface);
  record.waited_us = loop_.NowUs() - active.started_us;
  // A node that hands over what it runs has the tokens, not what was said about them.
  const bool scored = record.sampling.logprobs >= 0 || record.sampling.prompt_logprobs >= 0;
  if (fixed && fixed->may_run && !scored) {
    record.join = fixed->id;
    record.join_attempt = JoinAttempt(Clock::Real().UnixUs());
  }
  record.prompt = prepared->ids;
  const ModelState* state = FindState(limits.id);
  active.Admit(id, *std::move(prepared), record, state ? state->numerics_id : "");
  if (!active.WaitsForPromptScores()) active.BeginAnswer({});
  if (active_.count(id) == 0) return;  // the sink has cancelled it
  Drive(StartRequest{std::move(record)});
}

void GatewayService::Cancel(const RequestId& request) {
  const auto found = active_.find(request);
  if (found == active_.end()) return;
  found->second->Close(RequestOutcome::kCancelled, loop_.NowUs());
  // Its sink may be the caller: it goes when nothing of it is on the stack.
  loop_.Post([retired = std::shared_ptr<ActiveRequest>(std::move(found->second))] {});
  active_.erase(found);
  Drive(CancelRequest{request});
}

void GatewayService::Drive(OwnerInput input) {
  pending_.push_back(std::move(input));
  if (driving_) return;
  driving_ = true;
  while (!pending_.empty()) {
    OwnerOutput output = owner_.Step(std::move(pending_.front()), loop_.NowUs());
    pending_.pop_front();
    for (ToScheduler& out : output.to_schedulers) {
      // A Place is repeated by the owner; a lost Release is made up for by the node's reports.
      (void)schedulers_[out.scheduler]->Send(std::move(out.message));
    }
    for (ToNode& out : output.to_nodes) nodes_->Send(out.endpoint, std::move(out.message));
    for (OwnerEvent& event : output.events) {
      std::visit([this](auto& value) { Tell(value); }, event);
    }
  }
  driving_ = false;
  CountOwner();
  Pace();
}

void GatewayService::CountOwner() {
  const OwnerCounters& now = owner_.counters();
  const GatewayMetrics::Recovery& recovery = metrics_.recovery();
  const auto count = [](uint64_t to, uint64_t& from, const Counter& counter) {
    if (to > from) counter.Increment(static_cast<double>(to - from));
    from = to;
  };
  count(now.joins, counted_.joins, recovery.joins);
  count(now.poisoned, counted_.poisoned, recovery.poisoned);
  count(now.budget_refusals, counted_.budget_refusals, recovery.budget_refusals);
  count(now.late_messages, counted_.late_messages, recovery.late_messages);
  count(now.mismatched_tokens, counted_.mismatched_tokens, recovery.mismatched_tokens);
}

void GatewayService::EndAll(const Status& status) {
  Drive(muselet::EndAll{status});
  // What is still being tokenized is not known to the owner.
  while (!active_.empty()) Fail(RequestId(active_.begin()->first), {status, ""});
}

void GatewayService::Tell(const Ticketed& event) {
  const auto found = active_.find(event.request);
  if (found != active_.end()) found->second->CountTicket(event.first, event.waited_us);
}

void GatewayService::Tell(const QuotaTold& event) {
  quotas_.Note(event.scheduler, event.surface, event.quota, loop_.NowUs());
}

QuotaState GatewayService::Quota(const std::string& surface) const {
  for (const SurfaceOptions& known : options_.surfaces) {
    if (known.name == surface) return quotas_.At(known, loop_.NowUs());
  }
  return {};
}

void GatewayService::Tell(AuditCase& event) {
  auto record = audits_.Begin(std::move(event), options_.gateway.request.timeout_us);
  if (!record) return Count(AuditTable::Report());
  pending_.push_back(StartRequest{std::move(*record)});
}

void GatewayService::Count(const AuditTable::Report& report) {
  metrics_.recovery().audits[static_cast<size_t>(report.outcome)].Increment();
  if (report.outcome != AuditTable::Outcome::kMismatch) return;
  metrics_.recovery().audit_mismatches.Increment();
  LogError("an audit found other tokens: one of two replicas computes wrongly",
           {{"request", report.checked.ToString()},
            {"model", report.model},
            {"replica", report.replica},
            {"choice", report.choice},
            {"index", report.index}});
}

void GatewayService::Tell(Delivered& event) {
  if (audits_.Has(event.sequence.request)) {
    for (const uint32_t choice : audits_.Take(event))
      pending_.push_back(StopChoice{{event.sequence.request, choice}});
    return;
  }
  const auto found = active_.find(event.sequence.request);
  if (found == active_.end()) return;
  const RequestId request = event.sequence.request;
  ActiveRequest& active = *found->second;
  for (const uint32_t choice : active.Deliver(std::move(event), loop_.NowUs()))
    pending_.push_back(StopChoice{{request, choice}});
}

void GatewayService::Tell(const Reattempted& event) {
  LogWarn("an attempt of a request ended early, the next one begins",
          {{"request", event.request.ToString()},
           {"attempt", event.attempt},
           {"cause", event.cause.message()},
           {"node", event.endpoint}});
}

void GatewayService::Tell(const Ended& event) {
  if (audits_.Has(event.request)) return Count(audits_.End(event));
  if (!event.status.ok()) {
    Fail(event.request, {event.status, "", event.retry_after_us, event.code});
    return;
  }
  const auto found = active_.find(event.request);
  if (found == active_.end()) return;
  std::unique_ptr<ActiveRequest> active = std::move(found->second);
  active_.erase(found);
  active->Finish(loop_.NowUs());
}

void GatewayService::Fail(const RequestId& id, const GenerationError& error) {
  const auto found = active_.find(id);
  if (found == active_.end()) return;
  std::unique_ptr<ActiveRequest> active = std::move(found->second);
  active_.erase(found);
  active->Fail(error, loop_.NowUs());
}

}  // namespace muselet
