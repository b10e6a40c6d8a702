#include "tests/comms/rank_members.h"

namespace muselet::testing {

const std::vector<RankMaker>& RankMakers() {
  static const std::vector<RankMaker> makers = {
      {"shm", MakeSharedMemoryGroup},
      {"gloo",
       [](const RankGroupSpec& spec, RankRendezvous& rendezvous) {
         return MakeGlooGroup(spec, "127.0.0.1", rendezvous);
       }},
  };
  return makers;
}

}  // namespace muselet::testing
