// The loop of one role: one thread, one asio::io_context; sockets, timers and posted work run on it
// and therefore need no locks. ZeroMQ sockets join through comms/message_socket.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"

namespace muselet {

class PeriodicTimer;

class EventLoop {
 public:
  explicit EventLoop(std::string name, const Clock& clock = Clock::Real());
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Runs until Stop; the calling thread is the loop thread, and its name is set.
  void Run();
  // Any thread. Returns at once; Run returns after the handler that is running.
  void Stop();
  // Runs `work` on the loop thread, later. Any thread.
  void Post(std::function<void()> work);
  // Calls `work` on the loop thread every `interval_us` from now on, for as long as the loop lives.
  // Any thread. Whatever `work` refers to must outlive the loop's Run: see PeriodicTimer otherwise.
  void Every(int64_t interval_us, std::function<void()> work);

  int64_t NowUs() const { return clock_.NowUs(); }
  const std::string& name() const { return name_; }
  boost::asio::io_context& io() { return io_; }
  // Times that the loop turned (for /livez): grows while the loop is alive, by a timer at least
  // twice a second.
  uint64_t turns() const;

 private:
  std::string name_;
  const Clock& clock_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::vector<std::unique_ptr<PeriodicTimer>> timers_;  // of Every; loop thread only
  std::atomic<uint64_t> turns_ = 0;
};

// Calls `work` on the loop thread every `interval_us` of real time until it is destroyed. Ticks
// that the loop was too busy for are left out, not made up for. Make and destroy it on the loop
// thread, or while the loop does not run; `work` may destroy it. The loop must outlive it.
class PeriodicTimer {
 public:
  PeriodicTimer(EventLoop& loop, int64_t interval_us, std::function<void()> work);
  ~PeriodicTimer();
  // From now on, at once: the next call comes after `interval_us`. Nothing happens if it was that
  // already. Loop thread; `work` may call it. Timers of idle roles go slower, so that they wake the
  // machine less.
  void SetInterval(int64_t interval_us);
  PeriodicTimer(const PeriodicTimer&) = delete;
  PeriodicTimer& operator=(const PeriodicTimer&) = delete;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace muselet
