#include "node/config/cluster_checks.h"

#include <algorithm>
#include <map>
#include <set>

#include "node/config/address.h"
#include "node/config/rank_checks.h"
#include "node/config/suggestion.h"

namespace muselet {
namespace {

std::string Item(const char* section, size_t index) {
  return std::string(section) + "[" + std::to_string(index) + "]";
}

template <typename Entry>
void NumberNames(std::vector<Entry>& entries, const std::string& stem) {
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].name.empty()) entries[i].name = stem + "-" + std::to_string(i);
  }
}

template <typename Entry>
std::vector<std::string> NamesOf(const std::vector<Entry>& entries) {
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.push_back(entry.name);
  return names;
}

bool Contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

void FillInReplicas(ClusterConfig& config) {
  if (config.replicas.empty()) {
    for (const ModelEntry& model : config.models) {
      for (const NodeEntry& node : config.nodes) {
        ReplicaEntry replica;
        replica.model = model.id;
        replica.on = {node.name};
        config.replicas.push_back(replica);
      }
    }
  }
  for (ReplicaEntry& replica : config.replicas) {
    if (replica.model.empty() && config.models.size() == 1) replica.model = config.models[0].id;
    if (replica.on.empty() && config.nodes.size() == 1) replica.on = {config.nodes[0].name};
  }
  NumberNames(config.replicas, "replica");
}

class Checker {
 public:
  Checker(const ClusterConfig& config, const ConfigRequest& request, ValueLedger& ledger)
      : config_(config), request_(request), ledger_(ledger) {}

  void Run() {
    if (config_.models.empty() && !InDoubt("models")) {
      Fault("models", "no model is named", "add models: [{path: ...}]");
    }
    CheckNames();
    CheckModels();
    CheckReplicas();
    CheckRanks(config_, ledger_);
    CheckAddresses();
    CheckExposure();
    CheckKeys();
    CheckSurfaces();
    CheckOptions();
    CheckEntry();
  }

 private:
  bool InDoubt(const std::string& path) const { return ledger_.InDoubt(path); }
  void Fault(const std::string& path, std::string problem, std::string hint) {
    ledger_.Fault(path, std::move(problem), std::move(hint));
  }

  // True if the value `field` of no entry of the section is in doubt.
  template <typename Entry>
  bool AllKnown(const std::vector<Entry>& entries, const char* section, const char* field) const {
    if (InDoubt(section)) return false;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (InDoubt(Item(section, i) + field)) return false;
    }
    return true;
  }
  // The id of a model may follow from its path.
  bool ModelIdInDoubt(size_t index) const {
    const std::string model = Item("models", index);
    return InDoubt(model + ".id") || (!ledger_.Given(model + ".id") && InDoubt(model + ".path"));
  }
  bool ModelIdsKnown() const {
    if (InDoubt("models")) return false;
    for (size_t i = 0; i < config_.models.size(); ++i) {
      if (ModelIdInDoubt(i)) return false;
    }
    return true;
  }

  void Claim(std::set<std::string>& taken, const std::string& name, const std::string& path,
             const char* what) {
    if (taken.insert(name).second) return;
    Fault(path, std::string("the ") + what + " \"" + name + "\" is given twice",
          "names must be unique");
  }

  void CheckNames() {
    std::set<std::string> models;
    for (size_t i = 0; i < config_.models.size(); ++i) {
      if (ModelIdInDoubt(i)) continue;
      Claim(models, config_.models[i].id, Item("models", i) + ".id", "model id");
    }
    std::set<std::string> processes;  // `run --name` must find one
    const auto claim_all = [&](const auto& entries, const char* section, auto& taken) {
      for (size_t i = 0; i < entries.size(); ++i) {
        const std::string path = Item(section, i) + ".name";
        if (!InDoubt(path)) Claim(taken, entries[i].name, path, "name");
      }
    };
    claim_all(config_.gateways, "gateways", processes);
    claim_all(config_.schedulers, "schedulers", processes);
    claim_all(config_.nodes, "nodes", processes);
    std::set<std::string> replicas;
    claim_all(config_.replicas, "replicas", replicas);
    std::set<std::string> surfaces;
    claim_all(config_.surfaces, "surfaces", surfaces);
  }

  void CheckModels() {
    if (!AllKnown(config_.replicas, "replicas", ".model")) return;
    std::set<std::string> served;
    for (const ReplicaEntry& replica : config_.replicas) served.insert(replica.model);
    for (size_t i = 0; i < config_.models.size(); ++i) {
      const std::string& id = config_.models[i].id;
      if (served.contains(id) || ModelIdInDoubt(i)) continue;
      Fault(Item("models", i) + ".id", "no replica serves \"" + id + "\"",
            "add one under replicas");
    }
  }

  void CheckReplicas() {
    std::vector<std::string> models;
    for (const ModelEntry& model : config_.models) models.push_back(model.id);
    const bool models_known = ModelIdsKnown() && !models.empty();
    for (size_t i = 0; i < config_.replicas.size(); ++i) {
      const ReplicaEntry& replica = config_.replicas[i];
      const std::string path = Item("replicas", i);
      if (models_known && !InDoubt(path + ".model")) {
        if (replica.model.empty()) {
          Fault(path + ".model", "missing", "there are several models: name one");
        } else if (!Contains(models, replica.model)) {
          Fault(path + ".model", "no model has the id \"" + replica.model + "\"",
                DidYouMean(replica.model, models, "add it under models"));
        }
      }
      if (!InDoubt(path + ".on")) CheckPlacement(replica, path);
    }
  }

  void CheckPlacement(const ReplicaEntry& replica, const std::string& path) {
    const std::vector<std::string> nodes = NamesOf(config_.nodes);
    const bool nodes_known = AllKnown(config_.nodes, "nodes", ".name");
    if (replica.on.empty() && nodes_known) {
      Fault(path + ".on", "missing", "there are several nodes: name one");
    }
    for (const std::string& node : replica.on) {
      if (!nodes_known || Contains(nodes, node)) continue;
      Fault(path + ".on", "no node is called \"" + node + "\"",
            DidYouMean(node, nodes, "add it under nodes"));
    }
  }

  struct Address {
    std::string path;
    std::string text;  // HOST:PORT
  };
  // Every address that some process binds.
  std::vector<Address> Addresses() const {
    std::vector<Address> all;
    const auto add = [&](const std::string& path, const std::string& text) {
      constexpr std::string_view kTcp = "tcp://";
      if (text.empty() || IsInproc(text) || InDoubt(path)) return;
      all.push_back({path, text.rfind(kTcp, 0) == 0 ? text.substr(kTcp.size()) : text});
    };
    for (size_t i = 0; i < config_.gateways.size(); ++i) {
      add(Item("gateways", i) + ".http", config_.gateways[i].http);
      add(Item("gateways", i) + ".rpc", config_.gateways[i].rpc);
    }
    for (size_t i = 0; i < config_.schedulers.size(); ++i) {
      add(Item("schedulers", i) + ".rpc", config_.schedulers[i].rpc);
      add(Item("schedulers", i) + ".metrics", config_.schedulers[i].metrics);
    }
    for (size_t i = 0; i < config_.nodes.size(); ++i) {
      add(Item("nodes", i) + ".ranks", config_.nodes[i].ranks);
      add(Item("nodes", i) + ".metrics", config_.nodes[i].metrics);
    }
    return all;
  }

  void CheckAddresses() {
    std::map<std::string, std::string> taken;
    for (const Address& address : Addresses()) {
      if (address.text.ends_with(":0")) continue;
      const auto [first, fresh] = taken.emplace(address.text, address.path);
      if (fresh) continue;
      Fault(address.path, address.text + " is taken by " + first->second, "choose another port");
    }
    std::set<std::string> inproc;
    for (size_t i = 0; i < config_.schedulers.size(); ++i) {
      const std::string& rpc = config_.schedulers[i].rpc;
      if (InDoubt(Item("schedulers", i) + ".rpc")) continue;
      if (!IsInproc(rpc)) {
        if (!rpc.ends_with(":0")) continue;
        Fault(Item("schedulers", i) + ".rpc", "port 0 cannot be found by the others",
              "choose a port");
      } else if (!inproc.insert(rpc).second) {
        Fault(Item("schedulers", i) + ".rpc", rpc + " is given twice", "choose another name");
      }
    }
  }

  void CheckExposure() {
    if (config_.insecure || InDoubt("insecure")) return;
    for (size_t i = 0; i < config_.gateways.size(); ++i) {
      const GatewayEntry& gateway = config_.gateways[i];
      const Result<HostPort> http = ParseHostPort(gateway.http);
      const bool open =
          http.ok() && !IsLoopbackHost(http->host) && !InDoubt(Item("gateways", i) + ".http");
      if (open && AcceptsWithoutKey()) {
        Fault(Item("gateways", i) + ".http",
              gateway.http + " can be reached from outside without a key",
              "give every surface a key_file, bind 127.0.0.1, or set insecure: true");
      }
    }
    if (config_.security.key_file.empty() && !InDoubt("security.key_file")) CheckPlainWires();
  }

  void CheckPlainWires() {
    const auto check = [&](const std::string& path, const std::string& text, bool loopback) {
      if (text.empty() || loopback || InDoubt(path)) return;
      Fault(path, text + " is not a loopback address",
            "give every process a key with security.key_file (muselet keys generate), use a "
            "loopback address, or set insecure: true on a network that you trust");
    };
    for (size_t i = 0; i < config_.gateways.size(); ++i) {
      const std::string& rpc = config_.gateways[i].rpc;
      check(Item("gateways", i) + ".rpc", rpc, IsLoopbackEndpoint(rpc));
    }
    for (size_t i = 0; i < config_.schedulers.size(); ++i) {
      const std::string& rpc = config_.schedulers[i].rpc;
      check(Item("schedulers", i) + ".rpc", rpc, IsLoopbackEndpoint(rpc));
    }
    for (size_t i = 0; i < config_.nodes.size(); ++i) {
      const NodeEntry& node = config_.nodes[i];
      check(Item("nodes", i) + ".host", node.host, IsLoopbackHost(node.host));
      check(Item("nodes", i) + ".ranks", node.ranks, IsLoopbackEndpoint(node.ranks));
    }
  }

  // Keys that nothing would use.
  void CheckKeys() {
    if (!config_.security.key_file.empty() || InDoubt("security")) return;
    const auto check = [&](const std::string& path, const std::string& value) {
      if (value.empty() || InDoubt(path)) return;
      Fault(path, "is of no use without a key of this process",
            "give security.key_file too (muselet keys generate)");
    };
    check("security.known_keys_file", config_.security.known_keys_file);
    check("security.front_end_keys_file", config_.security.front_end_keys_file);
    const auto check_all = [&](const auto& entries, const char* section) {
      for (size_t i = 0; i < entries.size(); ++i) {
        check(Item(section, i) + ".public_key", entries[i].public_key);
      }
    };
    check_all(config_.gateways, "gateways");
    check_all(config_.schedulers, "schedulers");
    check_all(config_.nodes, "nodes");
  }

  bool AcceptsWithoutKey() const {
    if (!AllKnown(config_.surfaces, "surfaces", ".key_file")) return false;
    return config_.surfaces.empty() ||
           std::any_of(config_.surfaces.begin(), config_.surfaces.end(),
                       [](const SurfaceEntry& surface) { return surface.key_file.empty(); });
  }

  void CheckSurfaces() {
    const std::string* keyless = nullptr;
    for (size_t i = 0; i < config_.surfaces.size(); ++i) {
      const SurfaceEntry& surface = config_.surfaces[i];
      if (!surface.key_file.empty() || InDoubt(Item("surfaces", i) + ".key_file")) continue;
      if (keyless != nullptr) {
        Fault(Item("surfaces", i) + ".key_file", "missing",
              "requests without a key are of surface \"" + *keyless + "\" already");
      }
      keyless = &surface.name;
    }
    for (size_t i = 0; i < config_.surfaces.size(); ++i) {
      const SurfaceEntry& surface = config_.surfaces[i];
      const uint32_t most = surface.reasoning_tokens_max;
      const std::string path = Item("surfaces", i) + ".reasoning_tokens_";
      if (most == 0 || surface.reasoning_tokens_default <= most) continue;
      if (InDoubt(path + "default") || InDoubt(path + "max")) continue;
      Fault(path + "default",
            std::to_string(surface.reasoning_tokens_default) + " is more than reasoning_tokens_max",
            "at most " + std::to_string(most));
    }
  }

  void CheckOptions() {
    const BatchOptions& batch = config_.engine.batch;
    if (batch.prefill_chunk_max > batch.step_tokens_max) {
      CompareFault("batch.prefill_chunk_max", "batch.step_tokens_max", "larger than",
                   "at most " + std::to_string(batch.step_tokens_max));
    }
    if (batch.sequences_max > batch.step_tokens_max) {
      CompareFault("batch.sequences_max", "batch.step_tokens_max", "larger than",
                   "every running sequence needs a row of a step");
    }
    if (batch.step_target_us > batch.step_max_us) {
      CompareFault("batch.step_target", "batch.step_max", "longer than", "");
    }
    CheckHeartbeat("gateway", config_.gateway.heartbeat_interval_us,
                   config_.gateway.peer_timeout_us);
    CheckHeartbeat("scheduler", config_.scheduler.heartbeat_interval_us,
                   config_.scheduler.peer_timeout_us);
    if (config_.engine.peer_timeout_us < 2 * config_.engine.report_interval_us) {
      CompareFault("engine.peer_timeout", "engine.report_interval", "shorter than two", "");
    }
  }

  void CheckHeartbeat(const std::string& role, int64_t interval_us, int64_t timeout_us) {
    if (timeout_us >= 2 * interval_us) return;
    CompareFault(role + ".peer_timeout", role + ".heartbeat_interval", "shorter than two",
                 "one late heartbeat would look like a loss");
  }

  void CompareFault(const std::string& key, const std::string& other, const std::string& how,
                    std::string hint) {
    if (InDoubt(key) || InDoubt(other)) return;
    Fault(key, how + " " + other, std::move(hint));
  }

  // `run --name` speaks to other processes, so inproc endpoints will not do.
  void CheckEntry() {
    if (request_.entry.empty()) return;
    std::vector<std::string> names = NamesOf(config_.gateways);
    for (const auto& more : {NamesOf(config_.schedulers), NamesOf(config_.nodes)}) {
      names.insert(names.end(), more.begin(), more.end());
    }
    const bool known = AllKnown(config_.gateways, "gateways", ".name") &&
                       AllKnown(config_.schedulers, "schedulers", ".name") &&
                       AllKnown(config_.nodes, "nodes", ".name");
    if (known && !Contains(names, request_.entry)) {
      std::string listed;
      for (const std::string& name : names) listed += (listed.empty() ? "" : ", ") + name;
      ledger_.Add({{ValueSource::Kind::kFlag, "--name", 0, 0},
                   "",
                   "no entry is called \"" + request_.entry + "\"",
                   DidYouMean(request_.entry, names, "there are: " + listed)});
    }
    for (size_t i = 0; i < config_.schedulers.size(); ++i) {
      if (!IsInproc(config_.schedulers[i].rpc)) continue;
      if (InDoubt(Item("schedulers", i) + ".rpc")) continue;
      Fault(Item("schedulers", i) + ".rpc",
            "no other process can reach " + config_.schedulers[i].rpc,
            "run needs an address such as tcp://127.0.0.1:5555; serve does not");
    }
  }

  const ClusterConfig& config_;
  const ConfigRequest& request_;
  ValueLedger& ledger_;
};

}  // namespace

void FillInCluster(ClusterConfig& config) {
  if (config.gateways.empty()) config.gateways.emplace_back();
  if (config.schedulers.empty()) config.schedulers.emplace_back();
  if (config.nodes.empty()) config.nodes.emplace_back();
  NumberNames(config.gateways, "gateway");
  NumberNames(config.schedulers, "scheduler");
  NumberNames(config.nodes, "node");
  for (SchedulerEntry& scheduler : config.schedulers) {
    if (scheduler.rpc.empty()) scheduler.rpc = "inproc://" + scheduler.name;
  }
  FillInReplicas(config);
}

void CheckCluster(const ClusterConfig& config, const ConfigRequest& request, ValueLedger& ledger) {
  if (!ledger.InDoubt("")) Checker(config, request, ledger).Run();
}

std::vector<std::string> ModelsNeededBy(const ClusterConfig& config, const std::string& entry) {
  std::vector<std::string> models;
  if (Contains(NamesOf(config.gateways), entry)) {
    for (const ModelEntry& model : config.models) models.push_back(model.id);
  }
  for (const ReplicaEntry& replica : config.replicas) {
    if (Contains(replica.on, entry) && !Contains(models, replica.model)) {
      models.push_back(replica.model);
    }
  }
  return models;
}

}  // namespace muselet
