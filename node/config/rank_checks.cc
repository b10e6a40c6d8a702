#include "node/config/rank_checks.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "node/config/address.h"
#include "node/config/rank_placement.h"

namespace muselet {
namespace {

std::string Item(const char* section, size_t index) {
  return std::string(section) + "[" + std::to_string(index) + "]";
}

std::string Count(uint64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

class RankChecker {
 public:
  RankChecker(const ClusterConfig& config, ValueLedger& ledger)
      : config_(config), ledger_(ledger) {}

  void Run() {
    for (size_t i = 0; i < config_.replicas.size(); ++i) {
      CheckShape(config_.replicas[i], Item("replicas", i));
    }
    if (!PlacementKnown()) return;
    for (size_t i = 0; i < config_.replicas.size(); ++i) {
      CheckDevices(config_.replicas[i], Item("replicas", i));
    }
    CheckEndpoints();
  }

 private:
  bool InDoubt(const std::string& path) const { return ledger_.InDoubt(path); }

  void CheckShape(const ReplicaEntry& replica, const std::string& path) {
    const bool known = !InDoubt(path + ".tensor") && !InDoubt(path + ".pipeline");
    if (known && RankCount(replica) > kRanksMax) {
      ledger_.Fault(path + ".pipeline", "tensor x pipeline is " + Count(RankCount(replica), "rank"),
                    "at most " + std::to_string(kRanksMax));
    }
    if (replica.layers.empty() || InDoubt(path + ".layers") || InDoubt(path + ".pipeline")) return;
    if (replica.layers.size() == replica.pipeline) return;
    ledger_.Fault(
        path + ".layers",
        Count(replica.layers.size(), "number") + " for " + Count(replica.pipeline, "stage"),
        "one number for each stage of the pipeline");
  }

  // A doubt about one node or replica is one about all placements.
  bool PlacementKnown() const {
    if (InDoubt("nodes") || InDoubt("replicas")) return false;
    for (size_t i = 0; i < config_.nodes.size(); ++i) {
      for (const char* field : {".name", ".devices"}) {
        if (InDoubt(Item("nodes", i) + field)) return false;
      }
    }
    for (size_t i = 0; i < config_.replicas.size(); ++i) {
      const ReplicaEntry& replica = config_.replicas[i];
      for (const char* field : {".name", ".tensor", ".pipeline", ".on"}) {
        if (InDoubt(Item("replicas", i) + field)) return false;
      }
      for (const std::string& node : replica.on) {
        if (FindNode(config_, node) == nullptr) return false;  // told already
      }
      for (const ReplicaEntry& other : config_.replicas) {
        if (&other != &replica && other.name == replica.name) return false;
      }
    }
    return true;
  }

  void CheckDevices(const ReplicaEntry& replica, const std::string& path) {
    const uint64_t wanted = RankCount(replica);
    if (replica.on.empty() || wanted > kRanksMax) return;
    if (wanted == 1 && replica.on.size() > 1) {
      ledger_.Fault(path + ".on", "a replica of one rank runs on one node",
                    "write one replica for each node, or shard it with tensor and pipeline");
      return;
    }
    const std::vector<RankPlacement> ranks = PlaceRanks(config_, replica);
    if (ranks.size() < wanted) {
      ledger_.Fault(path + (ledger_.Given(path + ".on") ? ".on" : ""),
                    Count(wanted, "rank") + " need a device each, and " +
                        Count(ranks.size(), "device") + (ranks.size() == 1 ? " is" : " are") +
                        " free on " + Listed(replica.on) + TakenBy(replica),
                    "name more under devices, as in [cpu:0, cpu:1], or more nodes");
      return;
    }
    const std::vector<std::string> used = NodesOf(ranks);
    for (const std::string& node : replica.on) {
      if (std::find(used.begin(), used.end(), node) != used.end()) continue;
      ledger_.Fault(path + ".on", "no rank is left for " + node,
                    "the ranks take the free devices of the nodes in order: leave " + node +
                        " out, or list fewer devices on the others");
    }
  }

  static std::string Listed(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
  }

  // ": r0 has cpu:0 of n0", for the replicas that were served before.
  std::string TakenBy(const ReplicaEntry& replica) const {
    std::string text;
    for (const ReplicaEntry& other : config_.replicas) {
      if (&other == &replica) break;
      for (const RankPlacement& rank : PlaceRanks(config_, other)) {
        if (std::find(replica.on.begin(), replica.on.end(), rank.node) == replica.on.end()) {
          continue;
        }
        text +=
            (text.empty() ? ": " : ", ") + other.name + " has " + rank.device + " of " + rank.node;
      }
    }
    constexpr size_t kShown = 200;
    return text.size() > kShown ? text.substr(0, kShown) + " ..." : text;
  }

  // Of replicas whose ranks stand on several nodes.
  void CheckEndpoints() {
    std::map<std::string, std::string> led;
    for (size_t i = 0; i < config_.replicas.size(); ++i) {
      const ReplicaEntry& replica = config_.replicas[i];
      const std::string path = Item("replicas", i);
      if (NodesOf(PlaceRanks(config_, replica)).size() < 2) continue;
      const size_t leader =
          static_cast<size_t>(FindNode(config_, LeaderOf(replica)) - config_.nodes.data());
      const std::string key = Item("nodes", leader) + ".ranks";
      if (!InDoubt(key)) CheckEndpoint(config_.nodes[leader], key, replica);
      CheckTensorWire(replica, path);
      const auto [first, fresh] = led.emplace(LeaderOf(replica), replica.name);
      if (fresh) continue;
      ledger_.Fault(path + ".on", LeaderOf(replica) + " leads " + first->second + " already",
                    "its ranks endpoint serves one replica: put another node first");
    }
  }

  // CURVE is the messages' alone.
  void CheckTensorWire(const ReplicaEntry& replica, const std::string& path) {
    if (config_.insecure || config_.engine.ranks.private_network) return;
    if (InDoubt("insecure") || InDoubt("ranks.private_network")) return;
    for (const std::string& name : NodesOf(PlaceRanks(config_, replica))) {
      const NodeEntry& node = *FindNode(config_, name);
      const size_t index = static_cast<size_t>(&node - config_.nodes.data());
      if (InDoubt(Item("nodes", index) + ".host") || IsLoopbackHost(node.host)) continue;
      ledger_.Fault(path + ".on",
                    "tensors between its ranks cross the network to " + node.host +
                        " in plain TCP, keys or not",
                    "ranks.private_network: true says that nobody else can reach that network; "
                    "or keep its ranks on one node");
      return;
    }
  }

  void CheckEndpoint(const NodeEntry& leader, const std::string& key, const ReplicaEntry& replica) {
    const std::string example = "such as tcp://" + leader.host + ":5560";
    if (leader.ranks.empty()) {
      ledger_.Fault(
          key,
          "missing: ranks of " + replica.name + " on other nodes join " + leader.name + " there",
          example);
    } else if (IsInproc(leader.ranks)) {
      ledger_.Fault(key, "no other process can reach " + leader.ranks, example);
    } else if (leader.ranks.ends_with(":0")) {
      ledger_.Fault(key, "port 0 cannot be found by the others", "choose a port");
    } else if (leader.ranks.starts_with("tcp://0.0.0.0:") ||
               leader.ranks.starts_with("tcp://[::]:")) {
      if (IsLoopbackHost(leader.host)) {
        ledger_.Fault(key, "the others look for it at the node's host, " + leader.host, example);
      }
    }
  }

  const ClusterConfig& config_;
  ValueLedger& ledger_;
};

}  // namespace

void CheckRanks(const ClusterConfig& config, ValueLedger& ledger) {
  RankChecker(config, ledger).Run();
}

}  // namespace muselet
