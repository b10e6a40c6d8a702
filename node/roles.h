// The three roles as a process runs them: each on its own loop and thread, owning its services in
// construction order. Made on the main thread; Start lets the loop run; Stop ends it; destroyed
// after Stop.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "comms/message_socket.h"
#include "monitoring/metrics.h"
#include "node/config/config.h"
#include "node/engine/replica_server.h"
#include "node/gateway/admin_server.h"
#include "node/gateway/cluster_secret.h"
#include "node/gateway/generation_service.h"
#include "node/gateway/http_gateway.h"
#include "node/gateway/rpc_server.h"
#include "node/model/model.h"
#include "node/model/shard_plan.h"
#include "node/rank/rank_children.h"
#include "node/rank/rank_step_engine.h"
#include "node/role_loop.h"
#include "node/served_models.h"
#include "scheduler/scheduler_service.h"

namespace muselet {

// What the roles of one process share. Outlives them.
struct ProcessContext {
  MetricRegistry metrics;
  WireContext wire;
  uint64_t instance = 0;  // drawn at start
  std::string version;
  std::function<void()> request_stop;   // as a SIGTERM would; any thread
  std::optional<ClusterSecret> secret;  // made by the first gateway
};

// Where the roles of this process reach each other: the endpoints of the config, or inproc:// ones.
struct Endpoints {
  std::vector<std::string> schedulers;  // parallel to ClusterConfig::schedulers
  bool in_process = false;

  static Endpoints InProcess(const ClusterConfig& config);
  static Endpoints OfConfig(const ClusterConfig& config);
};

class GatewayRole {
 public:
  static Result<std::unique_ptr<GatewayRole>> Create(const ClusterConfig& config,
                                                     const GatewayEntry& entry,
                                                     const Endpoints& endpoints,
                                                     const ServedModels& models,
                                                     ProcessContext& process);
  void Start() { loop_.Start(); }
  // OK when a token can be produced now, for every model. After Start.
  Status Ready();
  // From now on nothing new is taken, over HTTP and RPC; probes are still answered. The future is
  // set when what runs has ended. After Start, once.
  std::future<void> Drain();
  // What is not complete ends with an error that its client is told. After Drain.
  void CutOff();
  void Stop() { loop_.Stop(); }

  const std::string& name() const { return name_; }
  const std::string& http_address() const { return http_->address(); }
  const std::string& rpc_endpoint() const { return rpc_endpoint_; }  // "" = none
  bool keys_needed() const { return keys_needed_; }

 private:
  explicit GatewayRole(const std::string& name) : name_(name), loop_("gateway-" + name) {}

  std::string name_;
  RoleLoop loop_;
  std::unique_ptr<GatewayMetrics> metrics_;
  std::unique_ptr<GatewayService> service_;
  std::unique_ptr<HttpGateway> http_;
  std::unique_ptr<RpcServer> rpc_;
  std::string rpc_endpoint_;
  bool keys_needed_ = false;
};

class SchedulerRole {
 public:
  static Result<std::unique_ptr<SchedulerRole>> Create(const ClusterConfig& config,
                                                       const SchedulerEntry& entry,
                                                       const std::string& endpoint,
                                                       ProcessContext& process);
  void Start() { loop_.Start(); }
  void Stop() { loop_.Stop(); }

  const std::string& name() const { return name_; }
  const std::string& endpoint() const { return service_->endpoint(); }
  std::string admin_address() const { return admin_ ? admin_->address() : ""; }  // "" = none

 private:
  explicit SchedulerRole(const std::string& name) : name_(name), loop_("scheduler-" + name) {}

  std::string name_;
  RoleLoop loop_;
  std::unique_ptr<SchedulerMetrics> metrics_;
  std::unique_ptr<SchedulerService> service_;
  std::unique_ptr<AdminServer> admin_;
};

// A node with the replicas that the config puts on it.
class NodeRole {
 public:
  // Loads the models' weights: may take long.
  static Result<std::unique_ptr<NodeRole>> Create(const ClusterConfig& config,
                                                  const NodeEntry& entry,
                                                  const Endpoints& endpoints,
                                                  const ServedModels& models,
                                                  ProcessContext& process);
  void Start() { loop_.Start(); }
  // From now on nothing new is taken; the future is set when what runs has ended. After Start,
  // once.
  std::future<void> Drain();
  void Stop();
  // Whether a stop was asked for, after waiting for it at most so long.
  using StopAsked = std::function<bool(int64_t wait_us)>;
  // Replicas whose model is another one in `config` drain, load it, and are announced as new ones;
  // the others go on. A model that cannot be opened changes nothing; one that cannot be loaded
  // leaves its replica out of service, until the next Reload. Once a stop is asked for it gives up.
  // On the main thread; may take as long as a drain and loading weights.
  void Reload(const ClusterConfig& config, ProcessContext& process, const StopAsked& stop_asked);
  // /livez and /readyz of the node. On its loop.
  Status Live() const;
  Status Ready() const;

  struct ReplicaSummary {
    std::string replica;
    std::string model;
    ModelInfo info;
    ShardPlan shards;                 // of a sharded replica that this node leads, else no ranks
    std::vector<std::string> places;  // by rank: "n0 cpu:1"
  };
  const std::vector<ReplicaSummary>& replicas() const { return summaries_; }
  uint32_t threads_per_rank() const { return threads_per_rank_; }
  const std::string& name() const { return name_; }
  std::string admin_address() const { return admin_ ? admin_->address() : ""; }  // "" = none

 private:
  explicit NodeRole(const std::string& name) : name_(name), loop_("node-" + name) {}
  // Of one rank, which computes in this process.
  Status AddReplica(const ClusterConfig& config, const NodeEntry& entry,
                    const ReplicaEntry& replica, const Endpoints& endpoints,
                    const ServedModels& models, ProcessContext& process);

  // Its leader, if that is this node, and the ranks that have devices of this node.
  Status AddShardedReplica(const ClusterConfig& config, const NodeEntry& entry,
                           const ReplicaEntry& replica, const Endpoints& endpoints,
                           const ServedModels& models, ProcessContext& process);
  // Lets the replica be found, and remembers it.
  Status Serve(const ClusterConfig& config, const ReplicaEntry& replica,
               std::unique_ptr<StepEngine> engine, ReplicaSummary summary, ProcessContext& process);

  struct Replica {
    std::unique_ptr<NodeMetrics> metrics;
    std::unique_ptr<RankMetrics> rank_metrics;  // of a sharded one
    std::unique_ptr<ReplicaServer> server;      // null while it loads another model, or could not
    RankStepEngine* ranks = nullptr;            // of a sharded one; the server's
    ReplicaEntry entry;
    std::string model_path;
    uint32_t generation = 0;  // of its models
  };
  Result<Replica> MakeReplica(const ClusterConfig& config, const ReplicaEntry& replica,
                              std::unique_ptr<StepEngine> engine, const ModelInfo& info,
                              uint32_t generation, ProcessContext& process);
  // node/model_swap.cc
  void Swap(Replica& replica, const ReplicaEntry& entry, const ClusterConfig& config,
            ProcessContext& process, const StopAsked& stop_asked);
  bool TakeOutOfService(Replica& replica, int64_t drain_timeout_us, const StopAsked& stop_asked);
  Status LoadAndServe(Replica& replica, const ReplicaEntry& entry, const ClusterConfig& config,
                      const ServedModels& models, ProcessContext& process);

  std::string name_;
  NodeEntry entry_;
  Endpoints endpoints_;
  RoleLoop loop_;
  std::vector<Replica> replicas_;
  std::vector<ReplicaSummary> summaries_;
  uint32_t threads_per_rank_ = 1;
  std::unique_ptr<RankChildren> children_;  // of all sharded replicas
  std::unique_ptr<AdminServer> admin_;
};

}  // namespace muselet
