#include "comms/event_loop.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>

namespace muselet {
namespace {

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
  done.get_future().get();
  while (loop_.turns() < 2) std::this_thread::yield();
  SUCCEED();
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

TEST_F(EventLoopTest, StopFromAnyThreadEndsRun) {
  Run();
  loop_.Stop();
  thread_.join();
  SUCCEED();
}

}  // namespace
}  // namespace muselet
