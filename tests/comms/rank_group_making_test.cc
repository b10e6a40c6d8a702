// How a rank group comes about, or does not: all members have it or none, nothing is left behind,
// and nobody else gets in. And members that are processes, one of which is killed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <future>
#include <thread>

#include "base/clock.h"
#include "tests/comms/rank_members.h"
#include "tests/support/shared_rendezvous.h"

namespace muselet::testing {
namespace {

using ::testing::HasSubstr;

// Sees what the members tell each other.
class SpyingRendezvous final : public RankRendezvous {
 public:
  std::function<void(const std::string& key, const std::string& value)> on_put;

  Status Put(const std::string& key, std::string value) override {
    if (on_put) on_put(key, value);
    return board_.Put(key, std::move(value));
  }
  Result<std::string> Get(const std::string& key, int64_t deadline_us) override {
    return board_.Get(key, deadline_us);
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

TEST(SharedMemoryGroupTest, IsPrivateWhileItIsMadeAndHasNoNameAfterwards) {
  SpyingRendezvous rendezvous;
  std::string path;
  struct stat seen = {};
  rendezvous.on_put = [&](const std::string& key, const std::string& value) {
    if (key != "pair/shm/region") return;
    path = "/dev/shm" + value;
    EXPECT_EQ(stat(path.c_str(), &seen), 0) << path;
  };
  const auto both = MakeBoth(RankMakers()[0], rendezvous, 100);
  ASSERT_TRUE(both[0].ok() && both[1].ok());
  EXPECT_EQ(seen.st_mode & 0777U, 0600U);
  struct stat gone = {};
  EXPECT_NE(stat(path.c_str(), &gone), 0) << path << " is still there";
}

TEST(SharedMemoryGroupTest, LeavesNoNameBehindWhenAMemberIsMissing) {
  SpyingRendezvous rendezvous;
  std::string path;
  rendezvous.on_put = [&](const std::string& key, const std::string& value) {
    if (key == "pair/shm/region") path = "/dev/shm" + value;
  };
  const auto made = MakeSharedMemoryGroup(
      {.name = "pair", .rank = 0, .size = 2, .deadline_us = SecondsFromNow(0.05)}, rendezvous);
  EXPECT_FALSE(made.ok());
  struct stat gone = {};
  ASSERT_FALSE(path.empty());
  EXPECT_NE(stat(path.c_str(), &gone), 0) << path << " is still there";
}

TEST(GlooGroupTest, RefusesAHostThatIsNotThisOne) {
  SharedRendezvous rendezvous;
  const auto made =
      MakeGlooGroup({.name = "pair", .rank = 0, .size = 2, .deadline_us = SecondsFromNow(100)},
                    "192.0.2.1", rendezvous);
  EXPECT_EQ(made.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(made.status().message(), HasSubstr("192.0.2.1"));
}

// The address that Gloo gives is that of its socket.
int ConnectTo(const std::string& address) {
  sockaddr_storage storage = {};
  std::memcpy(&storage, address.data(), std::min(address.size(), sizeof(storage)));
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

RankGroupSpec PairSpec(uint32_t rank) {
  return {.name = "pair", .rank = rank, .size = 2, .deadline_us = Patience()};
}

class RankProcessTest : public ::testing::TestWithParam<size_t> {};

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
