// The TCP connections between the members of a rank group, one for each pair, before anything is
// said on them. Whoever connects must first prove by a token of the rendezvous that it is that
// member, and is answered with another one: strangers, and whatever they say, are closed and
// forgotten, so that a port scan does no more than cost a moment.
//
// The lower member of a pair listens, on its own host only, until all have come; the higher one
// connects, and tries again until it gets through.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "comms/rank_group_makers.h"
#include "comms/rank_rendezvous.h"

namespace muselet {

// Owns the sockets that are not released. One thread.
class MemberConnections {
 public:
  MemberConnections() = default;
  MemberConnections(MemberConnections&& other) noexcept : sockets_(std::move(other.sockets_)) {
    other.sockets_.clear();
  }
  MemberConnections& operator=(MemberConnections&&) = delete;
  ~MemberConnections();

  // All members of the group call this; `host` is the own address. kDeadlineExceeded names who has
  // not come; kUnavailable: the host is not this one, or the rendezvous' epoch is over.
  static Result<MemberConnections> Make(const RankGroupSpec& spec, const std::string& host,
                                        RankRendezvous& rendezvous);

  // The socket to that member, not blocking; the caller closes it.
  int Release(uint32_t member);

 private:
  friend class ConnectionVetting;
  std::vector<int> sockets_;  // by member; -1: none
};

}  // namespace muselet
