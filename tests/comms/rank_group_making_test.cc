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

constexpr size_t kSecretBytes = 32;  // before the address in what members tell each other

int ConnectTo(const std::string& value) {
  sockaddr_storage storage = {};
  std::memcpy(&storage, value.data() + kSecretBytes,
              std::min(value.size() - kSecretBytes, sizeof(storage)));
  const int fd = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&storage), sizeof(sockaddr_in)) == 0) return fd;
  close(fd);
  return -1;
}

std::string Greeting(uint32_t member, const std::string& token) {
  std::string hello = "muselet\x01";
  hello.append(reinterpret_cast<const char*>(&member), sizeof(member));
  return hello + token;
}

// A port scan, and worse: what would be frames of Gloo, and members that are none.
std::vector<std::string> Noise() {
  const std::vector<uint64_t> frame = {1ULL << 40, 99, 7, 1ULL << 50, ~0ULL, ~0ULL};
  std::vector<std::string> noise = {"",
                                    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                    std::string(reinterpret_cast<const char*>(frame.data()), 48),
                                    Greeting(1, std::string(16, 'x')),
                                    Greeting(0, std::string(16, '\0')),
                                    Greeting(~0U, std::string(16, 'x')),
                                    Greeting(1, "half"),
                                    std::string(1U << 20, '\xff')};
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const auto bytes = RandomBytes(0, 4096, seed);
    noise.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return noise;
}

void ExpectGroupWorks(const std::vector<Result<std::unique_ptr<RankGroup>>>& both) {
  const auto sum = [&](uint32_t rank) {
    RankGroup& group = **both[rank];
    std::vector<float> values(3000, static_cast<float>(rank + 1));
    const Status done = group.Wait(group.AllReduce(values), Patience());
    EXPECT_TRUE(done.ok()) << done.ToString();
    EXPECT_EQ(values, std::vector<float>(3000, 3.0F));
  };
  for (const auto& made : both) ASSERT_TRUE(made.ok()) << made.status().ToString();
  auto other = std::async(std::launch::async, sum, 1);
  sum(0);
  other.get();
}

TEST(GlooGroupTest, NoiseOnThePortWhileMembersJoinDoesNoHarm) {
  std::vector<std::thread> strangers;
  std::vector<int> held;
  std::mutex mutex;
  {
    SpyingRendezvous rendezvous;
    rendezvous.on_put = [&](const std::string& key, const std::string& value) {
      if (key.find("/gloo/") == std::string::npos) return;
      const std::lock_guard lock(mutex);
      // Before the other member knows where to connect, and from then on.
      for (int i = 0; i < 80; ++i) held.push_back(ConnectTo(value));
      const auto disturb = [value] {
        for (const std::string& noise : Noise()) {
          const int fd = ConnectTo(value);
          if (fd < 0) return;
          for (size_t at = 0; at < noise.size();) {
            const ssize_t sent = send(fd, noise.data() + at, noise.size() - at, MSG_NOSIGNAL);
            if (sent <= 0) break;
            at += static_cast<size_t>(sent);
          }
          close(fd);
        }
      };
      disturb();
      for (int i = 0; i < 3; ++i) strangers.emplace_back(disturb);
    };
    ExpectGroupWorks(MakeBoth(RankMakers()[1], rendezvous, 60));
  }
  for (std::thread& stranger : strangers) stranger.join();
  for (const int fd : held) close(fd);
}

TEST(GlooGroupTest, AStrangerIsHungUpOn) {
  std::thread stranger;
  std::promise<ssize_t> heard;
  {
    SpyingRendezvous rendezvous;
    rendezvous.on_put = [&](const std::string& key, const std::string& value) {
      if (key.find("/gloo/") == std::string::npos) return;
      const int fd = ConnectTo(value);
      const std::string hello = Greeting(1, std::string(16, 'x'));
      EXPECT_EQ(send(fd, hello.data(), hello.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(hello.size()));
      stranger = std::thread([fd, &heard] {
        char byte = 0;
        heard.set_value(recv(fd, &byte, 1, 0));
        close(fd);
      });
    };
    ExpectGroupWorks(MakeBoth(RankMakers()[1], rendezvous, 60));
  }
  EXPECT_LE(heard.get_future().get(), 0);
  stranger.join();
}

// Member `rank` of a pair, alone; the epoch ends under way.
void ExpectEndOfTheEpochEndsMaking(uint32_t rank, SpyingRendezvous& rendezvous) {
  rendezvous.looks_until_end = 4;
  const int64_t begin_us = Clock::Real().NowUs();
  const auto made =
      MakeGlooGroup({.name = "pair", .rank = rank, .size = 2, .deadline_us = Patience()},
                    "127.0.0.1", rendezvous);
  EXPECT_LT(Clock::Real().NowUs() - begin_us, 5'000'000);
  EXPECT_EQ(made.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(made.status().message(), HasSubstr("the epoch is over"));
}

TEST(GlooGroupTest, TheEndOfTheEpochEndsTheWaitForAConnection) {
  SpyingRendezvous rendezvous;
  ExpectEndOfTheEpochEndsMaking(0, rendezvous);
}

// Where member 0 is said to be.
std::string PlaceOf(int fd) {
  sockaddr_in address = {};
  socklen_t size = sizeof(address);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  return std::string(kSecretBytes, 't') +
         std::string(reinterpret_cast<const char*>(&address), size);
}

int BoundSocket() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

TEST(GlooGroupTest, TheEndOfTheEpochEndsTheWaitForAnAnswer) {
  const int fd = BoundSocket();
  ASSERT_EQ(listen(fd, 1), 0);
  SpyingRendezvous rendezvous;
  ASSERT_TRUE(rendezvous.Put("pair/gloo/0-1", PlaceOf(fd)).ok());
  ExpectEndOfTheEpochEndsMaking(1, rendezvous);
  close(fd);
}

TEST(GlooGroupTest, TriesAgainUntilItsPeerAnswersAsItShould) {
  const int fd = BoundSocket();
  SharedRendezvous rendezvous;
  ASSERT_TRUE(rendezvous.Put("pair/gloo/0-1", PlaceOf(fd)).ok());
  // Somebody hangs up, then somebody says the wrong thing, then nobody is there.
  ASSERT_EQ(listen(fd, 8), 0);
  std::thread peer([fd] {
    for (const std::string& answer : {std::string(), std::string(16, 'x')}) {
      const int connection = accept(fd, nullptr, nullptr);
      send(connection, answer.data(), answer.size(), MSG_NOSIGNAL);
      close(connection);
    }
    close(fd);
  });
  const auto made =
      MakeGlooGroup({.name = "pair", .rank = 1, .size = 2, .deadline_us = SecondsFromNow(0.5)},
                    "127.0.0.1", rendezvous);
  peer.join();
  EXPECT_EQ(made.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(made.status().message(), HasSubstr("member 0 did not connect"));
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
