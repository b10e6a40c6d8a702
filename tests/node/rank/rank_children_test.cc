// Real processes: shell scripts that stand in for ranks and behave as their replica's name says.
#include "node/rank/rank_children.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "comms/event_loop.h"

namespace muselet {
namespace {

using State = RankChildState;

constexpr auto kPatience = std::chrono::seconds(20);

constexpr const char* kStandIn = R"(#!/bin/sh
# rank --replica NAME --rank N --leader ENDPOINT --supervised --config FILE
case $3 in
  joins) printf J >&3; exec cat >/dev/null <&3 ;;
  tells)
    echo "$5 $7" | cat - "${10}" >"$0.told" 2>&1
    ls /proc/self/fd | wc -l >>"$0.told"
    exec cat >/dev/null <&3 ;;
  crashes) printf J >&3; kill -SEGV $$ ;;
  aborts) kill -ABRT $$ ;;
  refused) printf "Wpid $$ has another model" >&3; exit 3 ;;
  stubborn) trap '' TERM; printf J >&3; exec cat >/dev/null <&3 ;;
esac
)";

class RankChildrenTest : public ::testing::Test {
 protected:
  RankChildrenTest() {
    directory_ = std::filesystem::temp_directory_path() /
                 ("rank_children_" + std::to_string(getpid()) + "_" +
                  ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(directory_);
    options_.program = (directory_ / "stand_in.sh").string();
    std::ofstream(options_.program) << kStandIn;
    chmod(options_.program.c_str(), 0700);
    options_.silence_interval_us = 3'600'000'000;
    options_.restart.pause_min_us = 1000;
    options_.restart.pause_max_us = 2000;
  }
  ~RankChildrenTest() override { std::filesystem::remove_all(directory_); }

  RankChildSpec Rank(const std::string& behaviour) {
    return {behaviour, 1, "tcp://127.0.0.1:1", "cluster: of-the-test\n"};
  }
  // Turns the loop until `condition` holds.
  bool Until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!condition() && std::chrono::steady_clock::now() < deadline) {
      loop_.io().run_one_for(std::chrono::milliseconds(100));
    }
    return condition();
  }

  std::filesystem::path directory_;
  RankChildrenOptions options_;
  EventLoop loop_{"test"};
};

TEST_F(RankChildrenTest, SaysWhenARankHasJoined) {
  RankChildren children(loop_, options_);
  children.Add(Rank("joins"));
  EXPECT_FALSE(children.Ready().ok());
  EXPECT_TRUE(Until([&] { return children.Ready().ok(); }));
  EXPECT_EQ(children.Children()[0].deaths, 0U);
}

TEST_F(RankChildrenTest, HandsOverConfigLeaderAndNothingElse) {
  RankChildren children(loop_, options_);
  children.Add(Rank("tells"));
  std::string told;
  EXPECT_TRUE(Until([&] {
    std::ifstream file(options_.program + ".told");
    told.assign(std::istreambuf_iterator<char>(file), {});
    return std::count(told.begin(), told.end(), '\n') == 3;
  }));
  // Its descriptors: the standard streams, 3 and 4, and the one that lists them.
  EXPECT_EQ(told, "1 tcp://127.0.0.1:1\ncluster: of-the-test\n6\n");
}

TEST_F(RankChildrenTest, StartsAKilledRankAgain) {
  RankChildren children(loop_, options_);
  children.Add(Rank("joins"));
  ASSERT_TRUE(Until([&] { return children.Ready().ok(); }));
  const int first = children.Children()[0].pid;
  kill(first, SIGKILL);
  EXPECT_TRUE(Until([&] { return children.Children()[0].deaths == 1; }));
  EXPECT_FALSE(children.Ready().ok());
  EXPECT_TRUE(Until([&] { return children.Ready().ok(); }));
  EXPECT_NE(children.Children()[0].pid, first);
  EXPECT_NE(children.Children()[0].last_death.find("SIGKILL"), std::string::npos);
}

TEST_F(RankChildrenTest, QuarantinesARankThatCrashesAgainAndAgain) {
  int own_faults = 0;
  options_.on_death = [&](RankDeath::Cause cause) {
    own_faults += cause == RankDeath::Cause::kOwnFault ? 1 : 0;
  };
  RankChildren children(loop_, options_);
  children.Add(Rank("crashes"));
  EXPECT_TRUE(Until([&] { return children.Children()[0].state == State::kQuarantined; }));
  EXPECT_EQ(own_faults, 3);
  EXPECT_EQ(children.Children()[0].deaths, 3U);
  EXPECT_NE(children.Ready().message().find("quarantine"), std::string::npos);
  EXPECT_NE(children.Ready().message().find("SIGSEGV"), std::string::npos);
}

TEST_F(RankChildrenTest, StartsARankAgainThatDiesBeforeItHasJoined) {
  RankChildren children(loop_, options_);
  children.Add(Rank("aborts"));
  EXPECT_TRUE(Until([&] { return children.Children()[0].deaths >= 5; }));
  EXPECT_NE(children.Children()[0].state, State::kQuarantined);
  EXPECT_NE(children.Ready().message().find("SIGABRT"), std::string::npos);
}

TEST_F(RankChildrenTest, RepeatsTheLastWordsOfARankThatIsRefused) {
  RankChildren children(loop_, options_);
  children.Add(Rank("refused"));
  EXPECT_TRUE(Until([&] { return children.Children()[0].deaths >= 2; }));
  EXPECT_NE(children.Ready().message().find("another model"), std::string::npos)
      << children.Ready().message();
}

TEST_F(RankChildrenTest, SaysOnceWhyARankIsRefused) {
  ::testing::internal::CaptureStderr();
  RankChildren children(loop_, options_);
  children.Add(Rank("refused"));
  const bool again = Until([&] { return children.Children()[0].deaths >= 4; });
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(again);
  const size_t first = log.find("has another model");
  EXPECT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find("has another model", first + 1), std::string::npos) << log;
}

TEST_F(RankChildrenTest, TriesAgainWhatCannotBeExecuted) {
  options_.program = (directory_ / "missing").string();
  RankChildren children(loop_, options_);
  children.Add(Rank("joins"));
  EXPECT_TRUE(Until([&] { return children.Children()[0].deaths >= 2; }));
}

TEST_F(RankChildrenTest, KillsARankThatIsSilentAndStartsAnother) {
  options_.silence_interval_us = 50'000;
  options_.silent_intervals_max = 4;
  RankChildren children(loop_, options_);
  children.Add(Rank("joins"));
  EXPECT_TRUE(Until([&] { return children.Children()[0].deaths == 1; }));
  EXPECT_NE(children.Children()[0].last_death.find("hung"), std::string::npos);
}

TEST_F(RankChildrenTest, LeavesNoProcessBehind) {
  options_.stop_limit_us = 100'000;
  std::vector<int> pids;
  {
    RankChildren children(loop_, options_);
    for (const char* behaviour : {"joins", "stubborn"}) children.Add(Rank(behaviour));
    ASSERT_TRUE(Until([&] { return children.Ready().ok(); }));
    for (const auto& child : children.Children()) pids.push_back(child.pid);
    kill(pids[0], SIGSTOP);
  }
  for (const int pid : pids) EXPECT_EQ(kill(pid, 0), -1) << pid;
}

}  // namespace
}  // namespace muselet
