// A twin around a rank group that does one wrong thing at a given operation, so that tests can see
// that everything above a group ends, and ends in time.
#pragma once

#include <cstdint>
#include <memory>

#include "comms/rank_group.h"

namespace muselet {

struct RankFault {
  enum class Kind {
    kDelay,    // the operation is called `delay_us` late, unless Abort comes first
    kStall,    // this operation and all later ones are never called: Wait ends at its deadline
    kDrop,     // the operation is not called, yet seems complete
    kCorrupt,  // one bit of what this member gives is turned round; of a Recv, of what it gets
  };
  Kind kind = Kind::kDelay;
  RankTicket at = 1;  // the operation, as numbered by the twin
  int64_t delay_us = 0;
};

// The twin has the contract of the group that it owns; tickets are its own.
std::unique_ptr<RankGroup> MakeFaultyGroup(std::unique_ptr<RankGroup> group,
                                           const RankFault& fault);

}  // namespace muselet
