// An event loop with the thread that runs it: what every role of a process stands on. A role's
// services are made before Start and destroyed after Stop, while nothing runs, so they need no
// locks.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "base/status.h"
#include "comms/event_loop.h"

namespace muselet {

class RoleLoop {
 public:
  explicit RoleLoop(std::string name) : loop_(std::move(name)) {}
  ~RoleLoop() { Stop(); }
  RoleLoop(const RoleLoop&) = delete;
  RoleLoop& operator=(const RoleLoop&) = delete;

  EventLoop& loop() { return loop_; }
  void Start();
  // Returns when the thread has ended; does nothing if it does not run.
  void Stop();

  // Runs `question` on the loop thread and waits for its answer; kUnavailable if the loop does not
  // answer within `timeout_us`. Any thread but the loop's. REQUIRES: started.
  Status Ask(std::function<Status()> question, int64_t timeout_us = 2'000'000);

 private:
  EventLoop loop_;
  std::thread thread_;
};

}  // namespace muselet
