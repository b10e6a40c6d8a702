#include "comms/event_loop.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

namespace muselet {
namespace {

constexpr std::chrono::seconds kPatience(60);

class EventLoopTest : public ::testing::Test {
 protected:
  ~EventLoopTest() override {
    loop_.Stop();
    if (thread_.joinable()) thread_.join();
  }
  void Run() {
    thread_ = std::thread([this] { loop_.Run(); });
  }

  EventLoop loop_{"a-loop-with-a-long-name"};
  std::thread thread_;
};

TEST_F(EventLoopTest, PostedWorkRunsInOrderOnTheNamedLoopThread) {
  std::promise<std::string> done;
  int count = 0;
  for (int i = 0; i < 100; ++i) {
    loop_.Post([&, i] {
      EXPECT_EQ(count, i);
      ++count;
    });
  }
  loop_.Post([&] {
    char name[16] = {};
    pthread_getname_np(pthread_self(), name, sizeof(name));
    done.set_value(name);
  });
  Run();
  EXPECT_EQ(done.get_future().get(), "a-loop-with-a-l");
  EXPECT_EQ(count, 100);
}

TEST_F(EventLoopTest, EveryRepeatsAndTheLoopTurns) {
  std::promise<void> done;
  int ticks = 0;
  loop_.Every(1000, [&] {
    if (++ticks == 5) done.set_value();
  });
  Run();
  EXPECT_EQ(done.get_future().wait_for(kPatience), std::future_status::ready);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (loop_.turns() < 2 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  EXPECT_GE(loop_.turns(), 2U);
}

TEST_F(EventLoopTest, DestroyedTimerCallsNoMore) {
  std::promise<void> done;
  int ticks = 0;
  std::unique_ptr<PeriodicTimer> timer;
  loop_.Post([&] {
    timer = std::make_unique<PeriodicTimer>(loop_, 1000, [&] {
      ++ticks;
      timer.reset();
    });
  });
  int others = 0;
  loop_.Every(2000, [&] {
    if (++others == 10) done.set_value();
  });
  Run();
  done.get_future().get();
  EXPECT_EQ(ticks, 1);
}

TEST_F(EventLoopTest, ATimerGoesFasterAtOnceAndKeepsOnePace) {
  std::promise<void> done;
  int ticks = 0;
  std::unique_ptr<PeriodicTimer> timer;
  loop_.Post([&] {
    timer = std::make_unique<PeriodicTimer>(loop_, 3'600'000'000, [&] {
      ++ticks;
      timer->SetInterval(ticks == 3 ? 3'600'000'000 : 1'000);
      if (ticks == 3)
        loop_.Every(5'000, [&, count = 0]() mutable {
          if (++count == 5) done.set_value();
        });
    });
    timer->SetInterval(1'000);
  });
  Run();
  EXPECT_EQ(done.get_future().wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(ticks, 3);
  loop_.Stop();
  thread_.join();
}

// Timers that are due come in the order of their times, however late the loop is.
TEST_F(EventLoopTest, AnIntervalSetInsideTheWorkIsWaitedForOnce) {
  constexpr int64_t kNewUs = 20'000;
  for (const int64_t old_us : {1'000, 2 * 20'000}) {
    SCOPED_TRACE(old_us);
    std::promise<bool> timer_was_first;
    std::unique_ptr<PeriodicTimer> timer;
    std::unique_ptr<PeriodicTimer> other;
    bool set = false;
    EventLoop loop("timers");
    const auto end = [&](bool was_timer) {
      timer_was_first.set_value(was_timer);
      loop.Stop();
    };
    timer = std::make_unique<PeriodicTimer>(loop, old_us, [&] {
      if (std::exchange(set, true)) return end(true);
      timer->SetInterval(kNewUs);
      other = std::make_unique<PeriodicTimer>(loop, kNewUs * 3 / 2, [&] { end(false); });
    });
    loop.Run();
    EXPECT_TRUE(timer_was_first.get_future().get());
    other.reset();
    timer.reset();
  }
}

TEST_F(EventLoopTest, StopFromAnyThreadEndsRun) {
  std::promise<void> ended;
  std::future<void> end = ended.get_future();
  std::promise<void> running;
  loop_.Post([&] { running.set_value(); });
  thread_ = std::thread([&] {
    loop_.Run();
    ended.set_value();
  });
  running.get_future().get();
  EXPECT_EQ(end.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  loop_.Stop();
  EXPECT_EQ(end.wait_for(kPatience), std::future_status::ready);
}

}  // namespace
}  // namespace muselet
