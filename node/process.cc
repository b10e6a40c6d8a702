#include "node/process.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "base/log.h"
#include "node/cli/version.h"
#include "node/config/config_writer.h"
#include "node/roles.h"
#include "node/sharded_replica.h"
#include "node/startup_table.h"
#include "node/stop_signals.h"
#include "node/wire_security.h"

namespace muselet {
namespace {

constexpr int kExitRefused = 2;
constexpr int64_t kReadyPollUs = 5'000;

// One line with the fix; the exit code of a start that was refused.
int Refuse(const Status& status) {
  std::fprintf(stderr, "muselet: %s\n", status.message().c_str());
  return kExitRefused;
}

constexpr auto kLastWords = std::chrono::seconds(1);

// Tells all of them to finish what runs; the futures say when they have.
template <typename Role>
std::vector<std::future<void>> DrainAll(const std::vector<std::unique_ptr<Role>>& roles) {
  std::vector<std::future<void>> ends;
  for (const auto& role : roles) ends.push_back(role->Drain());
  return ends;
}

bool AwaitAll(const std::vector<std::future<void>>& ends,
              std::chrono::steady_clock::time_point deadline) {
  return std::all_of(ends.begin(), ends.end(), [&](const std::future<void>& end) {
    return end.wait_until(deadline) == std::future_status::ready;
  });
}

// The roles of one process, in the order in which they start; they stop the other way round.
struct Roles {
  std::vector<std::unique_ptr<SchedulerRole>> schedulers;
  std::vector<std::unique_ptr<GatewayRole>> gateways;
  std::vector<std::unique_ptr<NodeRole>> nodes;

  // New work is refused first, then what runs may end, then the loops stop. One deadline holds for
  // all roles together; nodes go on taking what the gateways still owe.
  void Stop(int64_t drain_timeout_us) {
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::microseconds(drain_timeout_us);
    const auto answered = DrainAll(gateways);
    const bool drained = AwaitAll(answered, deadline) && AwaitAll(DrainAll(nodes), deadline);
    if (!drained && drain_timeout_us > 0) {
      LogWarn("the drain timeout is over: what still runs is cut off",
              {{"drain_timeout_ms", drain_timeout_us / 1000}});
      for (auto& gateway : gateways) gateway->CutOff();
      AwaitAll(answered, std::chrono::steady_clock::now() + kLastWords);
    }
    for (auto& gateway : gateways) gateway->Stop();
    for (auto& node : nodes) node->Stop();
    for (auto& scheduler : schedulers) scheduler->Stop();
  }
};

std::vector<std::string> AllModels(const ClusterConfig& config) {
  std::vector<std::string> ids;
  for (const ModelEntry& model : config.models) ids.push_back(model.id);
  return ids;
}

// The models that a role needs: a gateway all of them, a node those of its replicas.
std::vector<std::string> ModelsOnNode(const ClusterConfig& config, const std::string& node) {
  std::vector<std::string> ids;
  for (const ReplicaEntry& replica : config.replicas) {
    if (std::find(replica.on.begin(), replica.on.end(), node) == replica.on.end()) continue;
    if (std::find(ids.begin(), ids.end(), replica.model) == ids.end()) ids.push_back(replica.model);
  }
  return ids;
}

std::unique_ptr<ProcessContext> NewProcess() {
  auto process = std::make_unique<ProcessContext>();
  process->instance = RequestId::Random().low;
  process->version = std::string(SoftwareVersion());
  RegisterBuildInfo(process->metrics, process->version, std::string(SoftwareRevision()));
  return process;
}

// False if a stop was asked for before every gateway became ready.
bool WaitUntilReady(Roles& roles, StopSignals& signals) {
  for (auto& gateway : roles.gateways) {
    while (!gateway->Ready().ok()) {
      if (signals.Wait(kReadyPollUs)) return false;
    }
  }
  return true;
}

void AnnounceReady(const ClusterConfig& config, const Roles& roles, const std::string& version) {
  StartupRows rows = {{"muselet", version + ", revision " + std::string(SoftwareRevision())}};
  for (const auto& node : roles.nodes) AddNodeRows(*node, config.engine, rows);
  for (const auto& scheduler : roles.schedulers) AddSchedulerRows(*scheduler, rows);
  for (const auto& gateway : roles.gateways) AddGatewayRows(*gateway, rows);
  AddProcessRows(rows);
  std::fputs(FormatStartupTable(rows).c_str(), stdout);
  std::fflush(stdout);
  LogFields fields;
  if (!roles.gateways.empty()) fields.emplace_back("http", roles.gateways[0]->http_address());
  LogInfo("ready", fields);
}

// Whether the two differ in more than models and replicas.
bool RestDiffers(const ClusterConfig& before, ClusterConfig after) {
  after.models = before.models;
  after.replicas = before.replicas;
  return WriteConfig(before) != WriteConfig(after);
}

void Reload(ClusterConfig& config, const ReloadConfig& reload, Roles& roles,
            ProcessContext& process, StopSignals& signals) {
  LogInfo("reading the configuration again");
  const Result<ClusterConfig> fresh = reload();
  if (!fresh.ok()) {
    LogError("nothing is changed: the configuration has faults",
             {{"reason", fresh.status().message()}});
    return;
  }
  if (RestDiffers(config, *fresh)) {
    LogWarn(
        "models of replicas are reloaded alone: what else changed takes effect when this "
        "process starts again");
  }
  for (const auto& node : roles.nodes) {
    node->Reload(*fresh, process, [&signals](int64_t wait_us) { return signals.Wait(wait_us); });
  }
  config.models = fresh->models;
  config.replicas = fresh->replicas;
}

// From all roles made to all roles ended.
int RunUntilStopped(ClusterConfig config, const ReloadConfig& reload, Roles& roles,
                    ProcessContext& process, StopSignals& signals) {
  signals.ExitAtOnce(false);
  if (WaitUntilReady(roles, signals)) {
    AnnounceReady(config, roles, process.version);
    while (signals.Next() == StopSignals::Wish::kReload) {
      Reload(config, reload, roles, process, signals);
    }
  }
  LogInfo("stopping: requests that run may finish, a second signal stops at once",
          {{"drain_timeout_ms", config.drain_timeout_us / 1000}});
  roles.Stop(config.drain_timeout_us);
  LogInfo("stopped");
  return 0;
}

Status MakeAll(const ClusterConfig& config, ProcessContext& process, Roles& roles) {
  const Endpoints endpoints = Endpoints::InProcess(config);
  ASSIGN_OR_RETURN(const ServedModels models,
                   ServedModels::Open(config.models, AllModels(config), config.engine,
                                      /*with_text=*/true));
  for (size_t i = 0; i < config.schedulers.size(); ++i) {
    ASSIGN_OR_RETURN(auto role, SchedulerRole::Create(config, config.schedulers[i],
                                                      endpoints.schedulers[i], process));
    roles.schedulers.push_back(std::move(role));
  }
  for (const GatewayEntry& entry : config.gateways) {
    ASSIGN_OR_RETURN(auto role, GatewayRole::Create(config, entry, endpoints, models, process));
    roles.gateways.push_back(std::move(role));
  }
  // Gateways and schedulers answer (not ready) while the weights load.
  for (auto& role : roles.schedulers) role->Start();
  for (auto& role : roles.gateways) role->Start();
  for (const NodeEntry& entry : config.nodes) {
    ASSIGN_OR_RETURN(auto role, NodeRole::Create(config, entry, endpoints, models, process));
    role->Start();
    roles.nodes.push_back(std::move(role));
  }
  return OkStatus();
}

Status MakeOne(const ClusterConfig& config, const std::string& name, ProcessContext& process,
               Roles& roles) {
  const Endpoints endpoints = Endpoints::OfConfig(config);
  for (const SchedulerEntry& entry : config.schedulers) {
    if (entry.name != name) continue;
    ASSIGN_OR_RETURN(auto role, SchedulerRole::Create(config, entry, entry.rpc, process));
    role->Start();
    roles.schedulers.push_back(std::move(role));
  }
  for (const GatewayEntry& entry : config.gateways) {
    if (entry.name != name) continue;
    ASSIGN_OR_RETURN(const ServedModels models,
                     ServedModels::Open(config.models, AllModels(config), config.engine,
                                        /*with_text=*/true));
    ASSIGN_OR_RETURN(auto role, GatewayRole::Create(config, entry, endpoints, models, process));
    role->Start();
    roles.gateways.push_back(std::move(role));
  }
  for (const NodeEntry& entry : config.nodes) {
    if (entry.name != name) continue;
    ASSIGN_OR_RETURN(const ServedModels models,
                     ServedModels::Open(config.models, ModelsOnNode(config, name), config.engine,
                                        /*with_text=*/false));
    ASSIGN_OR_RETURN(auto role, NodeRole::Create(config, entry, endpoints, models, process));
    role->Start();
    roles.nodes.push_back(std::move(role));
  }
  if (roles.schedulers.empty() && roles.gateways.empty() && roles.nodes.empty()) {
    return NotFound("the config has no gateway, scheduler or node called " + name);
  }
  return OkStatus();
}

// Makes the roles with `make`, and runs them until a stop is asked for.
int Run(const ClusterConfig& config, const ReloadConfig& reload,
        const std::function<Status(ProcessContext& process, Roles& roles)>& make) {
  StopSignals signals;
  signals.ExitAtOnce(true);
  signals.ReloadOnHangUp(reload != nullptr);
  const std::unique_ptr<ProcessContext> process = NewProcess();
  process->request_stop = [&signals] { signals.Request(); };
  Roles roles;
  Status made = SecureWires(config, process->wire);
  if (made.ok()) made = make(*process, roles);
  if (!made.ok()) {
    roles.Stop(0);
    return Refuse(made);
  }
  return RunUntilStopped(config, reload, roles, *process, signals);
}

}  // namespace

int RunServe(const ClusterConfig& config, const ReloadConfig& reload) {
  return Run(config, reload, [&](ProcessContext& process, Roles& roles) {
    return MakeAll(config, process, roles);
  });
}

int RunRole(const ClusterConfig& config, const std::string& name, const ReloadConfig& reload) {
  return Run(config, reload, [&](ProcessContext& process, Roles& roles) {
    return MakeOne(config, name, process, roles);
  });
}

int RunRank(const ClusterConfig& config, const RankInvocation& invocation) {
  Result<RankProcessOptions> options = RankOptionsOf(config, invocation);
  if (!options.ok()) return Refuse(options.status());
  WireContext wire;
  const Status secured = SecureWires(config, wire);
  if (!secured.ok()) return Refuse(secured);
  return RunRankProcess(std::move(*options), wire);
}

}  // namespace muselet
