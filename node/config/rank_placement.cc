#include "node/config/rank_placement.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <utility>

namespace muselet {
namespace {

enum class Use { kShared, kExclusive };

// The devices that were taken so far, by (node, device).
class Devices {
 public:
  explicit Devices(const ClusterConfig& config) : config_(config) {}

  std::vector<RankPlacement> Take(const ReplicaEntry& replica) {
    const Use use = IsSharded(replica) ? Use::kExclusive : Use::kShared;
    const uint64_t wanted = std::min<uint64_t>(RankCount(replica), kRanksMax);
    std::vector<RankPlacement> ranks;
    for (const std::string& name : replica.on) {
      const NodeEntry* node = FindNode(config_, name);
      if (node == nullptr) continue;
      for (const std::string& text : node->devices) {
        const std::string device = DeviceOf(text);
        if (ranks.size() == wanted || !Free(name, device, use)) continue;
        taken_[{name, device}] = use;
        ranks.push_back({static_cast<uint32_t>(ranks.size()), name, device});
      }
    }
    return ranks;
  }

 private:
  bool Free(const std::string& node, const std::string& device, Use use) const {
    const auto found = taken_.find({node, device});
    return found == taken_.end() || (use == Use::kShared && found->second == Use::kShared);
  }

  const ClusterConfig& config_;
  std::map<std::pair<std::string, std::string>, Use> taken_;
};

}  // namespace

std::string DeviceOf(std::string_view text) {
  if (text == "cpu") return "cpu:0";
  const size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (colon == std::string_view::npos || (kind != "cpu" && kind != "cuda")) return "";
  const std::string_view number = text.substr(colon + 1);
  uint32_t value = 0;
  const auto [end, fault] = std::from_chars(number.data(), number.data() + number.size(), value);
  const bool whole = fault == std::errc() && end == number.data() + number.size();
  if (!whole || value >= kRanksMax || number != std::to_string(value)) return "";
  return std::string(text);
}

std::vector<RankPlacement> PlaceRanks(const ClusterConfig& config, const ReplicaEntry& replica) {
  Devices devices(config);
  for (const ReplicaEntry& each : config.replicas) {
    std::vector<RankPlacement> ranks = devices.Take(each);
    if (each.name == replica.name) return ranks;
  }
  return {};
}

std::vector<std::string> NodesOf(const std::vector<RankPlacement>& ranks) {
  std::vector<std::string> nodes;
  for (const RankPlacement& rank : ranks) {
    if (std::find(nodes.begin(), nodes.end(), rank.node) == nodes.end()) {
      nodes.push_back(rank.node);
    }
  }
  return nodes;
}

std::string RanksEndpoint(const ClusterConfig& config, const ReplicaEntry& replica) {
  const NodeEntry* leader = FindNode(config, LeaderOf(replica));
  const bool alone = NodesOf(PlaceRanks(config, replica)).size() < 2;
  return alone || leader == nullptr ? "tcp://127.0.0.1:0" : leader->ranks;
}

const NodeEntry* FindNode(const ClusterConfig& config, std::string_view name) {
  const auto found = std::find_if(config.nodes.begin(), config.nodes.end(),
                                  [&](const NodeEntry& node) { return node.name == name; });
  return found == config.nodes.end() ? nullptr : &*found;
}

}  // namespace muselet
