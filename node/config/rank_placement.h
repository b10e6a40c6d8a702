// Which device each rank of a replica computes on. A pure function of the config, so that every
// process of the cluster comes to the same answer.
//
// A replica of one rank runs inside its node's process, on the first device of the node that no
// sharded replica has; it shares it with the other replicas of one rank there. The ranks of a
// sharded replica are processes; each has a device of its own, which no other replica takes: in the
// order of the config's replicas each takes the first free devices of the nodes of its `on`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "node/config/config.h"

namespace muselet {

struct RankPlacement {
  uint32_t rank = 0;   // stage * tensor + tensor rank
  std::string node;    // name
  std::string device;  // "cpu:0", see DeviceOf
};

constexpr uint32_t kRanksMax = 1024;  // of one replica

// "cpu" -> "cpu:0"; "cpu:N", "cuda:N" as they are; "" for what is no device.
std::string DeviceOf(std::string_view text);

inline uint64_t RankCount(const ReplicaEntry& replica) {
  return uint64_t{replica.tensor} * replica.pipeline;
}
inline bool IsSharded(const ReplicaEntry& replica) {
  return RankCount(replica) > 1;
}
// The node whose process owns the replica's requests. REQUIRES: `on` is not empty.
inline const std::string& LeaderOf(const ReplicaEntry& replica) {
  return replica.on.front();
}

// The ranks of `replica`, an entry of `config`, in their order. Fewer than RankCount if there are
// not devices enough, or unknown nodes: node/config/rank_checks has refused that.
std::vector<RankPlacement> PlaceRanks(const ClusterConfig& config, const ReplicaEntry& replica);

// The nodes that ranks stand on, in the order of `on`.
std::vector<std::string> NodesOf(const std::vector<RankPlacement>& ranks);

// Where the leader listens for ranks: its node's `ranks` if some stand on other nodes, else
// loopback with a port that the system chooses.
std::string RanksEndpoint(const ClusterConfig& config, const ReplicaEntry& replica);

// nullptr if there is none.
const NodeEntry* FindNode(const ClusterConfig& config, std::string_view name);

}  // namespace muselet
