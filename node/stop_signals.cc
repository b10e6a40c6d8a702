#include "node/stop_signals.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace muselet {
namespace {

constexpr int kExitAfterSecondSignal = 130;

sigset_t StopSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGHUP);
  return set;
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = StopSet();
  CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  std::signal(SIGPIPE, SIG_IGN);
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  end_fd_ = eventfd(0, EFD_CLOEXEC);
  CHECK(signal_fd_ >= 0 && end_fd_ >= 0, "no file descriptors left");
  watcher_ = std::thread([this] { Watch(); });
}

StopSignals::~StopSignals() {
  const uint64_t one = 1;
  CHECK(write(end_fd_, &one, sizeof(one)) == sizeof(one));
  watcher_.join();
  close(signal_fd_);
  close(end_fd_);
}

void StopSignals::ExitAtOnce(bool enabled) {
  const std::lock_guard lock(mutex_);
  exit_at_once_ = enabled;
}

void StopSignals::ReloadOnHangUp(bool enabled) {
  const std::lock_guard lock(mutex_);
  reload_enabled_ = enabled;
}

void StopSignals::Request() {
  const std::lock_guard lock(mutex_);
  if (exit_at_once_) std::_Exit(0);
  requested_ = true;
  changed_.notify_all();
}

StopSignals::Wish StopSignals::Next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return requested_ || reload_wanted_; });
  if (requested_) return Wish::kStop;
  reload_wanted_ = false;
  return Wish::kReload;
}

bool StopSignals::Wait(int64_t timeout_us) {
  std::unique_lock lock(mutex_);
  const auto requested = [this] { return requested_; };
  if (timeout_us < 0) {
    changed_.wait(lock, requested);
    return true;
  }
  return changed_.wait_for(lock, std::chrono::microseconds(timeout_us), requested);
}

void StopSignals::Watch() {
  std::array<pollfd, 2> watched = {pollfd{signal_fd_, POLLIN, 0}, pollfd{end_fd_, POLLIN, 0}};
  while (true) {
    if (poll(watched.data(), watched.size(), -1) < 0) continue;
    if (watched[1].revents != 0) return;
    signalfd_siginfo info{};
    if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    const std::lock_guard lock(mutex_);
    if (info.ssi_signo == SIGHUP && reload_enabled_) {
      reload_wanted_ = true;
      changed_.notify_all();
      continue;
    }
    if (std::exchange(signalled_, true)) {
      LogWarn("stopped at once by a second signal: what still ran is cut off");
      std::_Exit(kExitAfterSecondSignal);
    }
    if (exit_at_once_) std::_Exit(0);
    requested_ = true;
    changed_.notify_all();
  }
}

}  // namespace muselet
