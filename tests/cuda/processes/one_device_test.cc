// Two ranks on one device. NCCL refuses a device that two ranks of one host have, so each process
// gives itself out as a host of its own (NCCL_HOSTID); they speak over sockets then.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "comms/rank_tree.h"
#include "tests/comms/rank_members.h"
#include "tests/cuda/cuda_members.h"
#include "tests/support/shared_rendezvous.h"

namespace muselet::testing {
namespace {

constexpr uint32_t kRanks = 2;
constexpr size_t kCount = 100'003;
constexpr int kNoDevice = 77;

bool SumsByTheTree(RankGroup& group) {
  std::array<std::vector<float>, kRanks> parts;
  for (uint32_t rank = 0; rank < kRanks; ++rank) parts[rank] = TouchyValues(rank, kCount, 7);
  const std::array<const float*, kRanks> pointers = {parts[0].data(), parts[1].data()};
  std::vector<float> want(kCount);
  RankTreeSum(pointers, kCount, want.data());
  std::vector<float> values = parts[group.rank()];
  return group.Wait(group.AllReduce(values), Patience()).ok() &&
         std::memcmp(values.data(), want.data(), kCount * sizeof(float)) == 0;
}

bool MovesBytes(RankGroup& group) {
  const auto mine = RandomBytes(group.rank(), 12'345, 5);
  const auto theirs = RandomBytes(1 - group.rank(), 12'345, 5);
  std::vector<std::byte> all(kRanks * mine.size());
  auto shared = mine;
  std::vector<std::byte> received(mine.size());
  group.AllGather(mine, all);
  group.Broadcast(shared, 1);
  // Both send first.
  group.Send(mine, 1 - group.rank());
  const RankTicket last = group.Recv(received, 1 - group.rank());
  const size_t begin = (1 - group.rank()) * mine.size();
  return group.Wait(last, Patience()).ok() && received == theirs &&
         shared == RandomBytes(1, 12'345, 5) &&
         std::memcmp(all.data() + begin, theirs.data(), theirs.size()) == 0;
}

int RunRank(uint32_t rank, RankRendezvous& rendezvous) {
  setenv("NCCL_HOSTID", ("muselet-test-" + std::to_string(rank)).c_str(), 1);
  if (!WhyNoDevices(1).empty()) return kNoDevice;
  const auto made = MakeStagedNcclGroup(
      {.name = "pair", .rank = rank, .size = kRanks, .deadline_us = Patience()}, 0, rendezvous);
  if (!made.ok()) {
    std::fprintf(stderr, "%s\n", made.status().ToString().c_str());
    return 1;
  }
  return SumsByTheTree(**made) && MovesBytes(**made) ? 0 : 1;
}

TEST(NcclProcessTest, TwoRanksOnOneDeviceSumByTheTreeAndMoveBytes) {
  SharedRendezvous rendezvous;
  std::array<pid_t, kRanks> ranks;
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    ranks[rank] = fork();
    if (ranks[rank] == 0) _exit(RunRank(rank, rendezvous));
  }
  std::array<int, kRanks> codes;
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    int ending = 0;
    waitpid(ranks[rank], &ending, 0);
    codes[rank] = WIFEXITED(ending) ? WEXITSTATUS(ending) : -1;
  }
  if (codes[0] == kNoDevice) GTEST_SKIP() << "no GPU: NCCL needs one for two ranks";
  EXPECT_EQ(codes[0], 0);
  EXPECT_EQ(codes[1], 0);
}

}  // namespace
}  // namespace muselet::testing
