// NodeRole: another model for a replica while the rest of the node goes on.
#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "node/engine/local_step_engine.h"
#include "node/load_progress.h"
#include "node/model/load_model.h"
#include "node/roles.h"

namespace muselet {
namespace {

constexpr int64_t kPollUs = 20'000;
constexpr int64_t kLoopPatienceUs = 10'000'000;

std::string PathOf(const ClusterConfig& config, const std::string& id) {
  const auto found = std::find_if(config.models.begin(), config.models.end(),
                                  [&](const ModelEntry& model) { return model.id == id; });
  return found == config.models.end() ? "" : found->path;
}

}  // namespace

void NodeRole::Reload(const ClusterConfig& config, ProcessContext& process,
                      const StopAsked& stop_asked) {
  for (Replica& replica : replicas_) {
    const auto entry =
        std::find_if(config.replicas.begin(), config.replicas.end(),
                     [&](const ReplicaEntry& other) { return other.name == replica.entry.name; });
    if (stop_asked(0)) return;
    if (entry == config.replicas.end()) {
      LogWarn("a replica is not in the configuration any more: it goes on until the node stops",
              {{"replica", replica.entry.name}});
    } else if (replica.server && entry->model == replica.entry.model &&
               PathOf(config, entry->model) == replica.model_path) {
      continue;
    } else if (replica.ranks != nullptr || entry->tensor * entry->pipeline > 1) {
      LogWarn("a replica of several ranks changes its model with a restart of its nodes",
              {{"replica", entry->name}});
    } else {
      Swap(replica, *entry, config, process, stop_asked);
    }
  }
}

void NodeRole::Swap(Replica& replica, const ReplicaEntry& entry, const ClusterConfig& config,
                    ProcessContext& process, const StopAsked& stop_asked) {
  const Result<ServedModels> models =
      ServedModels::Open(config.models, {entry.model}, config.engine, /*with_text=*/false);
  if (!models.ok()) {
    LogError(
        "the model is not swapped: it cannot be opened",
        {{"replica", entry.name}, {"model", entry.model}, {"reason", models.status().message()}});
    return;
  }
  LogInfo("swapping the model",
          {{"replica", entry.name}, {"from", replica.entry.model}, {"to", entry.model}});
  if (!TakeOutOfService(replica, config.drain_timeout_us, stop_asked)) return;
  const Status served = LoadAndServe(replica, entry, config, *models, process);
  if (served.ok()) return;
  LogError("the replica has no model now: mend the configuration and reload it",
           {{"replica", entry.name}, {"model", entry.model}, {"reason", served.message()}});
}

// False: the process is to stop.
bool NodeRole::TakeOutOfService(Replica& replica, int64_t drain_timeout_us,
                                const StopAsked& stop_asked) {
  if (!replica.server) return true;
  replica.server->Drain();
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::microseconds(drain_timeout_us);
  while (!replica.server->drained() && std::chrono::steady_clock::now() < deadline) {
    if (stop_asked(kPollUs)) return false;
  }
  // What still runs is taken elsewhere by its gateways. Weights and KV cache go before the next
  // ones come.
  const Status stopped = loop_.Ask(
      [&replica] {
        replica.server->Stop();
        replica.server.reset();
        return OkStatus();
      },
      kLoopPatienceUs);
  if (!stopped.ok()) LogError("the model is not swapped", {{"reason", stopped.message()}});
  return stopped.ok();
}

Status NodeRole::LoadAndServe(Replica& replica, const ReplicaEntry& entry,
                              const ClusterConfig& config, const ServedModels& models,
                              ProcessContext& process) {
  LoadProgressDisplay progress(entry.model);
  EngineOptions options = config.engine;
  options.cpu.threads = threads_per_rank_;
  ASSIGN_OR_RETURN(std::shared_ptr<Model> model,
                   LoadModel(models.checkpoint(entry.model), options,
                             [&](uint64_t done, uint64_t total) { progress.Update(done, total); }));
  const ModelInfo info = model->info();
  auto engine = std::make_unique<LocalStepEngine>(std::move(model),
                                                  config.engine.batch.sequences_max, Clock::Real());
  RETURN_IF_ERROR(loop_.Ask(
      [&] {
        ASSIGN_OR_RETURN(Replica made, MakeReplica(config, entry, std::move(engine), info,
                                                   replica.generation + 1, process));
        replica = std::move(made);
        return OkStatus();
      },
      kLoopPatienceUs));
  LogInfo("loaded", {{"replica", entry.name},
                     {"model", entry.model},
                     {"numerics", info.numerics_id},
                     {"weight_bytes", info.weight_bytes}});
  return OkStatus();
}

}  // namespace muselet
