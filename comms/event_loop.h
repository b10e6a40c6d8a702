// The loop of one role: one thread, one asio::io_context; sockets, timers and posted work run on it
// and therefore need no locks. ZeroMQ sockets join through comms/message_socket.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <string>

#include "base/clock.h"

namespace muselet {

class EventLoop {
 public:
  explicit EventLoop(std::string name, const Clock& clock = Clock::Real());

  // Runs until Stop; the calling thread is the loop thread, and its name is set.
  void Run();
  // Any thread. Returns at once; Run returns after the handler that is running.
  void Stop();
  // Runs `work` on the loop thread, later. Any thread.
  void Post(std::function<void()> work);
  // Calls `work` on the loop thread every `interval_us` from now on, for as long as the loop lives.
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
};

}  // namespace muselet
