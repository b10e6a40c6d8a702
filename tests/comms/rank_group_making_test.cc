// How a rank group comes about, or does not: all members have it or none, nothing is left behind,
// and nobody else gets in. And members that are processes, one of which is killed.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "base/clock.h"
#include "comms/rank_link.h"
#include "tests/comms/rank_members.h"
#include "tests/support/shared_rendezvous.h"

namespace muselet::testing {
namespace {

using ::testing::HasSubstr;

// Sees what the members tell each other.
class SpyingRendezvous final : public RankRendezvous {
 public:
  std::function<void(const std::string& key, const std::string& value)> on_put;
  // The epoch is over when somebody looks for this many times.
  std::atomic<uint32_t> looks_until_end{~0U};

  Status Put(const std::string& key, std::string value) override {
    if (on_put) on_put(key, value);
    return board_.Put(key, std::move(value));
  }
  Result<std::string> Get(const std::string& key, int64_t deadline_us) override {
    return board_.Get(key, deadline_us);
  }
  Status ended() override {
    const bool over = looks_until_end <= 1;
    if (!over) --looks_until_end;
    return over ? Unavailable("the epoch is over") : OkStatus();
  }

 private:
  SharedRendezvous board_;
};

std::vector<Result<std::unique_ptr<RankGroup>>> MakeBoth(const RankMaker& maker,
                                                         RankRendezvous& rendezvous,
                                                         double seconds) {
  const auto make = [&](uint32_t rank) {
    return maker.make(
        {.name = "pair", .rank = rank, .size = 2, .deadline_us = SecondsFromNow(seconds)},
        rendezvous);
  };
  auto other = std::async(std::launch::async, make, 1);
  std::vector<Result<std::unique_ptr<RankGroup>>> both;
  both.push_back(make(0));
  both.push_back(other.get());
  return both;
}

class RankMakingTest : public ::testing::TestWithParam<size_t> {
 protected:
  const RankMaker& maker() const { return RankMakers()[GetParam()]; }
};

TEST_P(RankMakingTest, NamesTheMemberThatIsMissing) {
  for (const uint32_t rank : {0U, 1U}) {
    SharedRendezvous rendezvous;
    const auto made = maker().make(
        {.name = "tensor-0", .rank = rank, .size = 2, .deadline_us = SecondsFromNow(0.05)},
        rendezvous);
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.status().code(), StatusCode::kDeadlineExceeded) << made.status().ToString();
    EXPECT_THAT(made.status().message(), HasSubstr("tensor-0"));
    if (rank == 0) {
      EXPECT_THAT(made.status().message(), HasSubstr("1"));
    }
  }
}

TEST_P(RankMakingTest, EndsWithItsEpoch) {
  SharedRendezvous rendezvous;
  rendezvous.End();
  for (const auto& made : MakeBoth(maker(), rendezvous, 100)) {
    EXPECT_EQ(made.status().code(), StatusCode::kUnavailable) << made.status().ToString();
  }
}

TEST_P(RankMakingTest, RefusesNumbersThatAreNoGroup) {
  SharedRendezvous rendezvous;
  for (const RankGroupSpec& spec :
       {RankGroupSpec{.name = "a", .rank = 2, .size = 2}, RankGroupSpec{.name = "a", .size = 0},
        RankGroupSpec{.name = "a", .size = 1000}, RankGroupSpec{.name = "", .size = 1}}) {
    EXPECT_EQ(maker().make(spec, rendezvous).status().code(), StatusCode::kInvalidArgument);
  }
}

std::string MakerName(const ::testing::TestParamInfo<size_t>& info) {
  return RankMakers()[info.param].name;
}

INSTANTIATE_TEST_SUITE_P(Makers, RankMakingTest, ::testing::Values(0, 1), MakerName);

RankGroupSpec PairSpec(uint32_t rank) {
  return {.name = "pair", .rank = rank, .size = 2, .deadline_us = Patience()};
}

std::set<std::string> NamesOfSharedMemory() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    const std::string name = entry.path().filename();
    if (name.find("muselet") != std::string::npos) names.insert(name);
  }
  return names;
}

// Whoever is killed at that moment leaves nothing behind.
TEST(SharedMemoryGroupTest, HasNoNameNotEvenWhileItIsMade) {
  const auto before = NamesOfSharedMemory();
  SpyingRendezvous rendezvous;
  std::string path;
  rendezvous.on_put = [&](const std::string& key, const std::string& value) {
    if (key != "pair/shm/region") return;
    path = value;
    struct stat seen = {};
    EXPECT_EQ(stat(path.c_str(), &seen), 0) << path;
    EXPECT_EQ(seen.st_nlink, 0U);
    EXPECT_EQ(NamesOfSharedMemory(), before);
  };
  const auto both = MakeBoth(RankMakers()[0], rendezvous, 100);
  ASSERT_TRUE(both[0].ok() && both[1].ok());
  struct stat gone = {};
  EXPECT_NE(stat(path.c_str(), &gone), 0) << path << " is still open";
}

TEST(SharedMemoryGroupTest, ReservesAPartOfTheLargestMessageOnly) {
  SpyingRendezvous rendezvous;
  struct stat seen = {};
  rendezvous.on_put = [&](const std::string& key, const std::string& value) {
    if (key == "pair/shm/region") {
      EXPECT_EQ(stat(value.c_str(), &seen), 0) << value;
    }
  };
  const auto made = MakeSharedMemoryGroup({.name = "pair",
                                           .rank = 0,
                                           .size = 2,
                                           .message_bytes_max = 16U << 20,
                                           .deadline_us = SecondsFromNow(0.05)},
                                          rendezvous);
  EXPECT_FALSE(made.ok());
  EXPECT_GT(seen.st_size, 4 << 20);
  EXPECT_LT(seen.st_size, 9 << 20) << "of two rings";
}

TEST(SharedMemoryGroupTest, LeavesNothingOpenWhenAMemberIsMissing) {
  SpyingRendezvous rendezvous;
  std::string path;
  rendezvous.on_put = [&](const std::string& key, const std::string& value) {
    if (key == "pair/shm/region") path = value;
  };
  const auto made = MakeSharedMemoryGroup(
      {.name = "pair", .rank = 0, .size = 2, .deadline_us = SecondsFromNow(0.05)}, rendezvous);
  EXPECT_FALSE(made.ok());
  struct stat gone = {};
  ASSERT_FALSE(path.empty());
  EXPECT_NE(stat(path.c_str(), &gone), 0) << path << " is still open";
}

TEST(SharedMemoryGroupTest, RefusesMemoryThatItsMakerCouldCutOff) {
  SharedRendezvous rendezvous;
  ASSERT_TRUE(rendezvous.Put("pair/shm/region", "/proc/self/exe").ok());
  const auto made = MakeSharedMemoryGroup(PairSpec(1), rendezvous);
  EXPECT_FALSE(made.ok());
}

TEST(GlooGroupTest, RefusesAHostThatIsNotThisOne) {
  SharedRendezvous rendezvous;
  const auto made =
      MakeGlooGroup({.name = "pair", .rank = 0, .size = 2, .deadline_us = SecondsFromNow(100)},
                    "192.0.2.1", rendezvous);
  EXPECT_EQ(made.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(made.status().message(), HasSubstr("192.0.2.1"));
}

constexpr size_t kTokenBytes = 16;  // before the address of Gloo's socket

int ConnectTo(const std::string& value) {
  sockaddr_storage storage = {};
  std::memcpy(&storage, value.data() + kTokenBytes,
              std::min(value.size() - kTokenBytes, sizeof(storage)));
  const int fd = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&storage), sizeof(sockaddr_in)), 0);
  return fd;
}

TEST(GlooGroupTest, AStrangerWhoConnectsFirstGetsNoGroup) {
  SpyingRendezvous rendezvous;
  rendezvous.on_put = [](const std::string& key, const std::string& value) {
    if (key.find("-") != std::string::npos) close(ConnectTo(value));
  };
  const int64_t begin_us = Clock::Real().NowUs();
  const auto both = MakeBoth(RankMakers()[1], rendezvous, 2);
  EXPECT_FALSE(both[0].ok());
  EXPECT_FALSE(both[1].ok());
  EXPECT_LT(Clock::Real().NowUs() - begin_us, 60'000'000);
}

// Gives back what it reads, in the frames of Gloo, as though it came from the other member.
void EchoAsTheOther(int fd) {
  constexpr uint64_t kPieceOpcode = 1;
  struct {
    uint64_t bytes, opcode, slot, offset, length, remote_offset;
  } frame;
  while (recv(fd, &frame, sizeof(frame), MSG_WAITALL) == sizeof(frame)) {
    std::string piece(frame.opcode == kPieceOpcode ? frame.bytes - sizeof(frame) : 0, '\0');
    if (!piece.empty() && recv(fd, piece.data(), piece.size(), MSG_WAITALL) < 1) break;
    if (piece.size() >= sizeof(RankPieceHeader)) {
      RankPieceHeader header;
      std::memcpy(&header, piece.data(), sizeof(header));
      header.peer = 1 - header.peer;
      std::memcpy(piece.data(), &header, sizeof(header));
    }
    if (send(fd, &frame, sizeof(frame), MSG_NOSIGNAL) < 0) break;
    if (!piece.empty() && send(fd, piece.data(), piece.size(), MSG_NOSIGNAL) < 0) break;
  }
  close(fd);
}

TEST(GlooGroupTest, AStrangerWhoRepeatsWhatItReadsGetsNoGroup) {
  std::vector<std::thread> strangers;
  {
    SpyingRendezvous rendezvous;
    std::mutex mutex;
    rendezvous.on_put = [&](const std::string& key, const std::string& value) {
      if (key.find("-") == std::string::npos) return;
      const std::lock_guard lock(mutex);
      strangers.emplace_back(EchoAsTheOther, ConnectTo(value));
    };
    const auto both = MakeBoth(RankMakers()[1], rendezvous, 2);
    EXPECT_FALSE(both[0].ok());
    EXPECT_FALSE(both[1].ok());
    bool told = false;
    for (const auto& made : both) {
      told = told || made.status().message().find("a stranger") != std::string::npos;
    }
    EXPECT_TRUE(told) << both[0].status().ToString() << " / " << both[1].status().ToString();
  }
  for (std::thread& stranger : strangers) stranger.join();
}

// A member alone, whose peer has the address `peer` and says nothing; the epoch ends under way.
void ExpectEndOfTheEpochEndsConnecting(const std::string& host, const sockaddr_in& peer) {
  SpyingRendezvous rendezvous;
  rendezvous.on_put = [&](const std::string& key, std::string value) {
    if (key != "pair/gloo/0-1") return;
    std::memcpy(value.data() + kTokenBytes, &peer, sizeof(peer));
    ASSERT_TRUE(rendezvous.Put("pair/gloo/1-0", value).ok());
  };
  rendezvous.looks_until_end = 4;
  const int64_t begin_us = Clock::Real().NowUs();
  const auto made = MakeGlooGroup({.name = "pair", .rank = 0, .size = 2, .deadline_us = Patience()},
                                  host, rendezvous);
  EXPECT_LT(Clock::Real().NowUs() - begin_us, 2'000'000);
  EXPECT_EQ(made.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(made.status().message(), HasSubstr("the epoch is over"));
}

sockaddr_in AddressOf(const char* host) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(9);
  inet_pton(AF_INET, host, &address.sin_addr);
  return address;
}

TEST(GlooGroupTest, TheEndOfTheEpochEndsTheWaitForAConnection) {
  // The member with the lower address waits for the other one.
  ExpectEndOfTheEpochEndsConnecting("127.0.0.1", AddressOf("127.9.9.9"));
}

TEST(GlooGroupTest, TheEndOfTheEpochEndsTheWaitForAToken) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = AddressOf("127.0.0.1");
  address.sin_port = 0;
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ExpectEndOfTheEpochEndsConnecting("127.0.0.9", address);
  close(fd);
}

// A forked member, killed at the end of the test at the latest.
class Child {
 public:
  explicit Child(const std::function<void()>& body) : pid_(fork()) {
    if (pid_ != 0) return;
    body();
    _exit(0);
  }
  ~Child() {
    if (pid_ > 0) Kill();
  }
  void Kill() {
    kill(pid_, SIGKILL);
    Await();
  }
  int Await() {
    int ending = 0;
    waitpid(std::exchange(pid_, -1), &ending, 0);
    return ending;
  }

 private:
  pid_t pid_;
};

class RankProcessTest : public ::testing::TestWithParam<size_t> {
 protected:
  // As ranks do: Gloo may write to a connection whose other end was killed.
  void SetUp() override { std::signal(SIGPIPE, SIG_IGN); }
};

TEST_P(RankProcessTest, SumsAndPassesMessagesBetweenProcesses) {
  const RankMaker& maker = RankMakers()[GetParam()];
  SharedRendezvous rendezvous;
  const auto body = [&](uint32_t rank) {
    auto made = maker.make(PairSpec(rank), rendezvous);
    if (!made.ok()) return false;
    RankGroup& group = **made;
    std::vector<float> values(100'000, static_cast<float>(rank) + 0.5F);
    for (uint32_t i = 0; i < 5; ++i) {
      if (!group.Wait(group.AllReduce(values), Patience()).ok()) return false;
    }
    const auto data = std::as_writable_bytes(std::span(values));
    const RankTicket last = rank == 0 ? group.Send(data, 1) : group.Recv(data, 0);
    return group.Wait(last, Patience()).ok() &&
           values == std::vector<float>(100'000, 32.0F);  // (0.5 + 1.5) * 2^4
  };
  Child child([&] { _exit(body(1) ? 0 : 1); });
  EXPECT_TRUE(body(0));
  EXPECT_EQ(child.Await(), 0);
}

TEST_P(RankProcessTest, AKilledMemberIsNoticedByTheDeadlineOrByAbort) {
  const RankMaker& maker = RankMakers()[GetParam()];
  for (const bool aborts : {false, true}) {
    SharedRendezvous rendezvous;
    Child child([&] {
      auto made = maker.make(PairSpec(1), rendezvous);
      std::vector<float> values(1000);
      if (!made.ok() || !(*made)->Wait((*made)->AllReduce(values), Patience()).ok()) _exit(1);
      pause();
    });
    auto made = maker.make(PairSpec(0), rendezvous);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    RankGroup& group = **made;
    std::vector<float> values(1000);
    ASSERT_TRUE(group.Wait(group.AllReduce(values), Patience()).ok());
    child.Kill();
    const RankTicket ticket = group.AllReduce(values);
    std::thread watcher([&] {
      if (aborts) group.Abort(Unavailable("rank 1 died of signal 9"));
    });
    const int64_t begin_us = Clock::Real().NowUs();
    const Status status = group.Wait(ticket, aborts ? Patience() : SecondsFromNow(0.1));
    watcher.join();
    EXPECT_FALSE(status.ok());
    EXPECT_LT(Clock::Real().NowUs() - begin_us, 20'000'000) << status.ToString();
  }
}

INSTANTIATE_TEST_SUITE_P(Makers, RankProcessTest, ::testing::Values(0, 1), MakerName);

}  // namespace
}  // namespace muselet::testing
