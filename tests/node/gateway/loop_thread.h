// An event loop on a thread of its own, for tests that talk to it from outside.
#pragma once

#include <future>
#include <thread>

#include "comms/event_loop.h"

namespace muselet::testing {

// What lives on the loop is made before Start and destroyed after Stop.
class LoopThread {
 public:
  ~LoopThread() { Stop(); }
  EventLoop& loop() { return loop_; }
  void Start() {
    thread_ = std::thread([this] { loop_.Run(); });
  }
  void Stop() {
    if (!thread_.joinable()) return;
    loop_.Stop();
    thread_.join();
  }
  // Runs `work` on the loop and waits for it.
  template <typename Work>
  auto Do(Work work) {
    std::packaged_task<decltype(work())()> task(std::move(work));
    auto done = task.get_future();
    loop_.Post([&task] { task(); });
    return done.get();
  }

 private:
  EventLoop loop_{"test"};
  std::thread thread_;
};

}  // namespace muselet::testing
