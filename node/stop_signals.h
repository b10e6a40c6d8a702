// SIGINT, SIGTERM and SIGHUP as something to wait for: the first of the former asks for an orderly
// stop, the second ends the process at once; SIGHUP asks to read the configuration again.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace muselet {

// Made once, on the main thread before any other thread starts, so that all threads inherit the
// blocked signals. SIGPIPE is ignored from then on: a closed socket is a Status. Any thread may
// wait.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // While loading there is nothing to lose: the first signal already ends the process, with exit
  // code 0.
  void ExitAtOnce(bool enabled);
  // As the first signal does, but a signal after it is the first. Any thread.
  void Request();
  // Without a configuration to read again SIGHUP is what SIGTERM is. Off until it is called.
  void ReloadOnHangUp(bool enabled);

  enum class Wish { kStop, kReload };
  // Waits for it. What was asked for meanwhile counts; a stop goes first.
  Wish Next();
  // Whether a stop was asked for, after waiting for it at most `timeout_us` (negative: for ever).
  bool Wait(int64_t timeout_us);

 private:
  void Watch();

  int signal_fd_ = -1;
  int end_fd_ = -1;  // written by the destructor
  std::mutex mutex_;
  std::condition_variable changed_;
  bool requested_ = false;  // protected by mutex_, as all that follows
  bool signalled_ = false;
  bool reload_enabled_ = false;
  bool reload_wanted_ = false;
  bool exit_at_once_ = false;
  std::thread watcher_;
};

}  // namespace muselet
