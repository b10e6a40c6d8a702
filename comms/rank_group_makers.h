// Makers of RankGroup. All members call the same maker with the same name within the deadline, or
// none gets a group: kDeadlineExceeded and kUnavailable name the group and who is missing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "comms/rank_group.h"
#include "comms/rank_rendezvous.h"

namespace muselet {

struct RankGroupSpec {
  std::string name;  // "tensor-0", "edge-0-1": keys the rendezvous, names the group in the log
  uint32_t rank = 0;
  uint32_t size = 1;
  size_t message_bytes_max =
      64U << 20;            // the largest operation; a larger one is a broken invariant
  int64_t deadline_us = 0;  // for making it, of the monotonic clock
};

// kInvalidArgument: no members, more than kRankMembersMax (comms/rank_tree), a rank beyond them, or
// no name.
Status ValidateRankGroupSpec(const RankGroupSpec& spec);

// Members on one host, as processes of one user (and one PID namespace) or threads. The memory
// never has a name.
Result<std::unique_ptr<RankGroup>> MakeSharedMemoryGroup(const RankGroupSpec& spec,
                                                         RankRendezvous& rendezvous);

// Members on any hosts, over TCP. `host`: the own address that the others can reach.
Result<std::unique_ptr<RankGroup>> MakeGlooGroup(const RankGroupSpec& spec, const std::string& host,
                                                 RankRendezvous& rendezvous);

}  // namespace muselet
