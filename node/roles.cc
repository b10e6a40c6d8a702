#include "node/roles.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/log.h"
#include "node/engine/local_step_engine.h"
#include "node/gateway/api_keys.h"
#include "node/load_progress.h"
#include "node/model/load_model.h"
#include "node/sharded_replica.h"
#include "node/wire_security.h"

namespace muselet {
namespace {

constexpr int64_t kDrainPollUs = 10'000;
constexpr int64_t kStopTimeoutUs = 10'000'000;

std::vector<std::string> ModelIds(const ClusterConfig& config) {
  std::vector<std::string> ids;
  for (const ModelEntry& model : config.models) ids.push_back(model.id);
  return ids;
}

std::vector<HttpSurface> HttpSurfaces(const ClusterConfig& config) {
  std::vector<HttpSurface> surfaces;
  for (const SurfaceEntry& surface : config.surfaces) {
    surfaces.push_back({surface.name, surface.key_file, surface.request_class});
  }
  return surfaces;
}

std::vector<SurfaceOptions> RouteSurfaces(const ClusterConfig& config) {
  return {config.surfaces.begin(), config.surfaces.end()};
}

// Which surface an RPC's key belongs to, by the same files as HTTP's.
Result<std::function<Result<RpcCaller>(std::string_view)>> RpcAuthorizer(
    const std::vector<HttpSurface>& surfaces) {
  auto keys = std::make_shared<ApiKeys>();
  std::vector<RpcCaller> callers;
  for (const HttpSurface& surface : surfaces) {
    if (!surface.key_file.empty()) {
      RETURN_IF_ERROR(keys->AddFile(surface.key_file, callers.size()));
    }
    callers.push_back({surface.name, surface.request_class});
  }
  if (callers.empty()) callers.emplace_back();
  return std::function<Result<RpcCaller>(std::string_view)>(
      [keys, callers](std::string_view key) -> Result<RpcCaller> {
        if (keys->empty()) return callers.front();
        const std::optional<size_t> surface = keys->Find(key);
        if (!surface) return PermissionDenied("the API key is missing or not known here");
        return callers[*surface];
      });
}

// What the gateways of this process sign with.
Result<ClusterSecret> SecretOf(const ClusterConfig& config, ProcessContext& process) {
  const std::string& path = config.security.secret_file;
  if (!process.secret && !path.empty()) {
    ASSIGN_OR_RETURN(process.secret, ClusterSecret::ReadFrom(path));
  } else if (!process.secret) {
    process.secret = ClusterSecret::Random();
    LogInfo(
        "no security.secret_file: Idempotency-Key and Last-Event-ID are good for as long as "
        "this process lives, and at no other gateway");
  }
  return *process.secret;
}

// A role is heard at least this often: each one is held for lost by the timeouts of the others.
int64_t SilenceMaxUs(const ClusterConfig& config) {
  return std::min({config.gateway.peer_timeout_us, config.scheduler.peer_timeout_us,
                   config.engine.peer_timeout_us}) /
         4;
}

// Runs `begin` on the loop; the future is set when `begin`'s callback comes.
std::future<void> BeginDrain(RoleLoop& loop, std::function<void(std::function<void()>)> begin) {
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> future = done->get_future();
  loop.loop().Post([done, begin = std::move(begin)] { begin([done] { done->set_value(); }); });
  return future;
}

}  // namespace

Endpoints Endpoints::InProcess(const ClusterConfig& config) {
  Endpoints endpoints;
  endpoints.in_process = true;
  for (const SchedulerEntry& scheduler : config.schedulers) {
    endpoints.schedulers.push_back("inproc://" + scheduler.name);
  }
  return endpoints;
}

Endpoints Endpoints::OfConfig(const ClusterConfig& config) {
  Endpoints endpoints;
  for (const SchedulerEntry& scheduler : config.schedulers) {
    endpoints.schedulers.push_back(ConnectEndpoint(scheduler));
  }
  return endpoints;
}

Result<std::unique_ptr<GatewayRole>> GatewayRole::Create(const ClusterConfig& config,
                                                         const GatewayEntry& entry,
                                                         const Endpoints& endpoints,
                                                         const ServedModels& models,
                                                         ProcessContext& process) {
  std::unique_ptr<GatewayRole> role(new GatewayRole(entry.name));
  role->metrics_ = std::make_unique<GatewayMetrics>(process.metrics, entry.name, ModelIds(config));
  EventLoop& loop = role->loop_.loop();
  const LocalPeer local{entry.name, process.instance};
  GatewayOptions gateway = config.gateway;
  gateway.heartbeat_interval_us = std::min(gateway.heartbeat_interval_us, SilenceMaxUs(config));
  ASSIGN_OR_RETURN(const ClusterSecret secret, SecretOf(config, process));
  GatewayServiceOptions service{entry.name,     process.version,
                                config.cluster, endpoints.schedulers,
                                gateway,        models.ForGateway(config.engine)};
  service.surfaces = RouteSurfaces(config);
  service.drain_asked = process.request_stop;
  if (secret.shared()) service.secret = secret;
  ASSIGN_OR_RETURN(role->service_, GatewayService::Start(std::move(service), local, loop,
                                                         process.wire, *role->metrics_));
  HttpGatewayOptions http;
  http.address = entry.http;
  http.gateway = config.gateway;
  http.surfaces = HttpSurfaces(config);
  http.version = process.version;
  http.origins = std::make_shared<RequestOrigins>(secret, config.gateway.idempotency_keys_max);
  role->keys_needed_ = std::any_of(http.surfaces.begin(), http.surfaces.end(),
                                   [](const HttpSurface& s) { return !s.key_file.empty(); });
  ASSIGN_OR_RETURN(role->http_, HttpGateway::Start(http, *role->service_, loop, process.metrics,
                                                   *role->metrics_));
  if (!entry.rpc.empty()) {
    ASSIGN_OR_RETURN(auto authorize, RpcAuthorizer(http.surfaces));
    ASSIGN_OR_RETURN(role->rpc_, RpcServer::Start({.endpoint = entry.rpc,
                                                   .authorize = std::move(authorize),
                                                   .origins = http.origins},
                                                  *role->service_, loop, process.wire));
    role->rpc_endpoint_ = role->rpc_->endpoint();
  }
  LogInfo("listening", {{"gateway", entry.name}, {"http", role->http_address()}});
  return role;
}

Status GatewayRole::Ready() {
  return loop_.Ask([this] { return service_->Ready(); });
}

std::future<void> GatewayRole::Drain() {
  return BeginDrain(loop_, [this](const std::function<void()>& done) {
    http_->RefuseGeneration();
    // The port closes last: probes are answered while calls of the RPC still run.
    if (rpc_) {
      rpc_->Drain([this, done] { http_->Drain(done); });
    } else {
      http_->Drain(done);
    }
  });
}

void GatewayRole::CutOff() {
  const Status told = loop_.Ask([this] {
    service_->EndAll(Unavailable("the server stopped before this answer was complete; ask again"));
    return OkStatus();
  });
  if (!told.ok()) LogWarn("requests are cut off without a word", {{"reason", told.message()}});
}

Result<std::unique_ptr<SchedulerRole>> SchedulerRole::Create(const ClusterConfig& config,
                                                             const SchedulerEntry& entry,
                                                             const std::string& endpoint,
                                                             ProcessContext& process) {
  std::unique_ptr<SchedulerRole> role(new SchedulerRole(entry.name));
  const std::vector<SurfaceOptions> surfaces = RouteSurfaces(config);
  std::vector<std::string> surface_names;
  for (const SurfaceOptions& surface : surfaces) surface_names.push_back(surface.name);
  if (surface_names.empty()) surface_names.emplace_back("default");
  role->metrics_ = std::make_unique<SchedulerMetrics>(process.metrics, entry.name, ModelIds(config),
                                                      surface_names);
  ASSIGN_OR_RETURN(role->service_,
                   SchedulerService::Start({entry.name, endpoint, ModelIds(config),
                                            config.scheduler, surfaces, process.request_stop},
                                           {entry.name, process.instance}, role->loop_.loop(),
                                           process.wire, *role->metrics_));
  if (!entry.metrics.empty()) {
    SchedulerService* service = role->service_.get();
    ASSIGN_OR_RETURN(role->admin_,
                     AdminServer::Start({.address = entry.metrics,
                                         .version = process.version,
                                         .live = nullptr,
                                         .ready = [service] { return service->Ready(); }},
                                        role->loop_.loop(), process.metrics));
  }
  return role;
}

Result<std::unique_ptr<NodeRole>> NodeRole::Create(const ClusterConfig& config,
                                                   const NodeEntry& entry,
                                                   const Endpoints& endpoints,
                                                   const ServedModels& models,
                                                   ProcessContext& process) {
  std::unique_ptr<NodeRole> role(new NodeRole(entry.name));
  role->entry_ = entry;
  role->endpoints_ = endpoints;
  RankChildrenOptions children;
  children.on_death =
      [deaths = RankProcessMetrics(process.metrics, entry.name, RankDeathCauses()).deaths](
          RankDeath::Cause cause) { deaths[static_cast<size_t>(cause)].Increment(); };
  children.on_own_fault = [node = role.get()](const std::string& name) {
    for (const Replica& replica : node->replicas_) {
      if (replica.entry.name == name && replica.ranks != nullptr) replica.ranks->NoteOwnFault();
    }
  };
  role->children_ = std::make_unique<RankChildren>(role->loop_.loop(), std::move(children));
  role->threads_per_rank_ = ThreadsPerRank(config, entry, endpoints.in_process);
  // The admin port is bound first: a taken one is told before weights are loaded.
  if (!entry.metrics.empty()) {
    NodeRole* node = role.get();
    ASSIGN_OR_RETURN(role->admin_, AdminServer::Start({.address = entry.metrics,
                                                       .version = process.version,
                                                       .live = [node] { return node->Live(); },
                                                       .ready = [node] { return node->Ready(); }},
                                                      role->loop_.loop(), process.metrics));
  }
  for (const ReplicaEntry& replica : config.replicas) {
    if (std::find(replica.on.begin(), replica.on.end(), entry.name) == replica.on.end()) continue;
    const auto add = IsSharded(replica) ? &NodeRole::AddShardedReplica : &NodeRole::AddReplica;
    RETURN_IF_ERROR((role.get()->*add)(config, entry, replica, endpoints, models, process));
  }
  return role;
}

Status NodeRole::AddReplica(const ClusterConfig& config, const NodeEntry& /*entry*/,
                            const ReplicaEntry& replica, const Endpoints& /*endpoints*/,
                            const ServedModels& models, ProcessContext& process) {
  LoadProgressDisplay progress(replica.model);
  EngineOptions options = config.engine;
  options.cpu.threads = threads_per_rank_;
  ASSIGN_OR_RETURN(std::shared_ptr<Model> model,
                   LoadModel(models.checkpoint(replica.model), options,
                             [&](uint64_t done, uint64_t total) { progress.Update(done, total); }));
  ReplicaSummary summary{replica.name, replica.model, model->info(), {}, {}};
  return Serve(config, replica,
               std::make_unique<LocalStepEngine>(std::move(model),
                                                 config.engine.batch.sequences_max, Clock::Real()),
               std::move(summary), process);
}

Status NodeRole::AddShardedReplica(const ClusterConfig& config, const NodeEntry& entry,
                                   const ReplicaEntry& replica, const Endpoints& endpoints,
                                   const ServedModels& models, ProcessContext& process) {
  const std::shared_ptr<const Checkpoint> checkpoint = models.checkpoint(replica.model);
  Result<ShardPlan> plan = MakeShardPlan(*checkpoint, ShardSpecOf(replica));
  if (!plan.ok()) return plan.status().WithContext("replica " + replica.name);
  std::string leader = LeaderEndpoint(config, replica);
  if (LeaderOf(replica) == entry.name) {
    ASSIGN_OR_RETURN(RankStepEngineOptions options,
                     LeaderOptions(config, replica, *plan, *checkpoint));
    ReplicaSummary summary{replica.name, replica.model, options.info, std::move(*plan), {}};
    for (const RankPlacement& place : PlaceRanks(config, replica)) {
      summary.places.push_back(place.node + " " + place.device);
    }
    auto metrics =
        std::make_unique<RankMetrics>(process.metrics, entry.name, replica.name, RankLossNames());
    ASSIGN_OR_RETURN(std::unique_ptr<RankStepEngine> engine,
                     RankStepEngine::Make(std::move(options), process.wire, *metrics));
    RankStepEngine* const ranks = engine.get();
    leader = ranks->endpoint();
    RETURN_IF_ERROR(Serve(config, replica, std::move(engine), std::move(summary), process));
    replicas_.back().ranks = ranks;
    replicas_.back().rank_metrics = std::move(metrics);
  }
  // Once the loop turns: a child lives no longer than the thread that starts it.
  loop_.loop().Post(
      [this, specs = RanksOnNode(config, replica, entry, leader, endpoints.in_process)] {
        for (const RankChildSpec& spec : specs) children_->Add(spec);
      });
  return OkStatus();
}

Result<NodeRole::Replica> NodeRole::MakeReplica(const ClusterConfig& config,
                                                const ReplicaEntry& replica,
                                                std::unique_ptr<StepEngine> engine,
                                                const ModelInfo& info, uint32_t generation,
                                                ProcessContext& process) {
  RegisterModelInfo(process.metrics, {replica.model, info.architecture, info.model_digest,
                                      info.numerics_id, static_cast<double>(info.weight_bytes),
                                      static_cast<double>(info.context_tokens)});
  Replica made;
  made.entry = replica;
  made.generation = generation;
  for (const ModelEntry& model : config.models) {
    if (model.id == replica.model) made.model_path = model.path;
  }
  made.metrics = std::make_unique<NodeMetrics>(process.metrics, name_, replica.name, replica.model);
  ReplicaServerOptions options;
  options.replica = replica.name;
  options.model = replica.model;
  // Each generation is a process of its own to the others: with a name and an instance that no
  // message for the one before can reach.
  const std::string inside = "inproc://replica/" + replica.name;
  options.endpoint = endpoints_.in_process
                         ? inside + (generation == 0 ? "" : "/" + std::to_string(generation))
                         : "tcp://" + entry_.host + ":*";
  options.schedulers = endpoints_.schedulers;
  options.engine = config.engine;
  options.silence_max_us = SilenceMaxUs(config);
  options.local = {name_, generation == 0 ? process.instance : RequestId::Random().low};
  options.software_version = process.version;
  options.drain_asked = process.request_stop;
  ASSIGN_OR_RETURN(made.server, ReplicaServer::Start(options, std::move(engine), loop_.loop(),
                                                     process.wire, *made.metrics));
  return made;
}

Status NodeRole::Serve(const ClusterConfig& config, const ReplicaEntry& replica,
                       std::unique_ptr<StepEngine> engine, ReplicaSummary summary,
                       ProcessContext& process) {
  const ModelInfo& info = summary.info;
  ASSIGN_OR_RETURN(Replica added,
                   MakeReplica(config, replica, std::move(engine), info, 0, process));
  const bool sharded = !summary.shards.ranks.empty();
  LogInfo(sharded ? "waits for its ranks" : "loaded", {{"replica", replica.name},
                                                       {"model", replica.model},
                                                       {"numerics", info.numerics_id},
                                                       {"weight_bytes", info.weight_bytes}});
  replicas_.push_back(std::move(added));
  summaries_.push_back(std::move(summary));
  return OkStatus();
}

std::future<void> NodeRole::Drain() {
  return BeginDrain(loop_, [this](const std::function<void()>& done) {
    for (Replica& replica : replicas_) {
      if (replica.server) replica.server->Drain();
    }
    auto told = std::make_shared<bool>(false);
    loop_.loop().Every(kDrainPollUs, [this, done, told] {
      const bool drained = std::all_of(replicas_.begin(), replicas_.end(), [](const Replica& r) {
        return !r.server || r.server->drained();
      });
      if (drained && !std::exchange(*told, true)) done();
    });
  });
}

Status NodeRole::Live() const {
  for (const Replica& replica : replicas_) {
    if (replica.server && replica.server->Health().hung) {
      return Unavailable("the step loop of " + replica.server->info().replica + " hangs");
    }
  }
  return OkStatus();
}

Status NodeRole::Ready() const {
  if (children_->empty() && replicas_.empty()) {
    return Unavailable("no replica is loaded on this node");
  }
  RETURN_IF_ERROR(children_->Alive());
  for (const Replica& replica : replicas_) {
    if (!replica.server) return Unavailable(replica.entry.name + " has no model now");
    const ReplicaHealth health = replica.server->Health();
    const std::string& name = replica.server->info().replica;
    if (!health.ready && replica.ranks != nullptr && !health.draining) {
      const std::string missing = replica.ranks->waiting_for();
      if (!missing.empty()) return Unavailable(name + " waits for " + missing);
    }
    if (!health.ready) return Unavailable(health.reason);
    if (health.schedulers_connected == 0) return Unavailable(name + " has found no scheduler yet");
  }
  return children_->Ready();
}

void NodeRole::Stop() {
  // Goodbye is said while the loop still turns.
  const Status asked = loop_.Ask(
      [this] {
        for (Replica& replica : replicas_) {
          if (replica.server) replica.server->Stop();
        }
        children_->Stop();
        return OkStatus();
      },
      kStopTimeoutUs);
  if (!asked.ok()) LogWarn("stopping without a goodbye", {{"reason", asked.message()}});
  loop_.Stop();
}

}  // namespace muselet
