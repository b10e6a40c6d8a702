#include "node/rank/rank_children.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <optional>
#include <utility>

#include "base/log.h"
#include "node/rank/child_process.h"
#include "node/rank/supervisor_link.h"

namespace muselet {
namespace {

using boost::asio::posix::stream_descriptor;

constexpr int64_t kPollMaxMs = 1000;
// From SIGKILL to the end: a process that waits for its disk or device may take for ever.
constexpr std::chrono::seconds kKilledMost{2};
constexpr int64_t kNoChildrenUs = 3'600'000'000;  // nothing to look after

// Waits until the process has ended, or the deadline is over.
bool AwaitEnd(int process, std::chrono::steady_clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd watched = {process, POLLIN, 0};
    const int ready =
        poll(&watched, 1, static_cast<int>(std::clamp<int64_t>(left.count(), 0, kPollMaxMs)));
    if (ready > 0) return true;
    if (ready == 0 && left.count() <= 0) return false;
  }
}

// Takes the ended process away. Nothing if it has not ended.
std::optional<RankDeath> Reap(int process) {
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(process), &info, WEXITED | WNOHANG) != 0 ||
      info.si_pid == 0) {
    return std::nullopt;
  }
  return DescribeDeath(info.si_code == CLD_EXITED, info.si_status);
}

// A reason that names the process is the same reason for the next process.
std::string WithoutNumber(std::string reason, pid_t pid) {
  const std::string number = std::to_string(pid);
  for (size_t at = reason.find(number); at != std::string::npos; at = reason.find(number, at)) {
    reason.erase(at, number.size());
  }
  return reason;
}

struct Spawned {
  ChildProcess process;
  Descriptor link;
};

Result<Spawned> Spawn(const std::string& program, const RankChildSpec& spec) {
  ASSIGN_OR_RETURN(auto sockets, PacketSockets());
  ASSIGN_OR_RETURN(const Descriptor config, MemoryFile("muselet-config", spec.config_yaml));
  Spawned spawned;
  ASSIGN_OR_RETURN(spawned.process,
                   SpawnChild(program,
                              {"muselet", "rank", "--replica", spec.replica, "--rank",
                               std::to_string(spec.rank), "--leader", spec.leader, "--supervised",
                               "--config", "/proc/self/fd/" + std::to_string(kConfigDescriptor)},
                              {sockets.second.number(), config.number()}));
  spawned.link = std::move(sockets.first);
  return spawned;
}

}  // namespace

struct RankChildren::Watched {
  Watched(EventLoop& loop, RankChildSpec spec, const RestartOptions& restart)
      : spec(std::move(spec)), policy(restart), restart_timer(loop.io()) {}

  std::string Name() const { return spec.replica + " rank " + std::to_string(spec.rank); }
  LogFields Fields() const { return {{"replica", spec.replica}, {"rank", spec.rank}}; }

  RankChildSpec spec;
  RestartPolicy policy;
  RankChildState state = RankChildState::kDead;
  pid_t pid = 0;
  std::unique_ptr<stream_descriptor> process;  // a pidfd
  std::unique_ptr<stream_descriptor> link;
  boost::asio::steady_timer restart_timer;
  uint32_t silent_intervals = 0;
  bool killed_for_silence = false;
  bool ended = false;  // its supervisor wants it no more
  std::string reason;  // its last words
  uint64_t starts = 0;
  uint64_t deaths = 0;
  std::string last_death;
};

RankChildren::RankChildren(EventLoop& loop, RankChildrenOptions options)
    : loop_(loop),
      options_(std::move(options)),
      silence_timer_(loop, kNoChildrenUs, [this] { CheckSilence(); }) {}

RankChildren::~RankChildren() {
  Stop();
}

void RankChildren::Add(RankChildSpec spec) {
  silence_timer_.SetInterval(options_.silence_interval_us);
  children_.push_back(std::make_shared<Watched>(loop_, std::move(spec), options_.restart));
  Start(*children_.back());
}

void RankChildren::Start(Watched& child) {
  const auto self = *std::find_if(children_.begin(), children_.end(),
                                  [&](const auto& other) { return other.get() == &child; });
  child.policy.OnStart(loop_.NowUs());
  ++child.starts;
  child.silent_intervals = 0;
  child.killed_for_silence = false;
  child.reason.clear();
  Result<Spawned> started = Spawn(options_.program, child.spec);
  if (!started.ok()) {
    child.reason = started.status().message();
    OnDeath(self, {RankDeath::Cause::kUnable, "its process was not started"});
    return;
  }
  child.pid = started->process.pid;
  child.state = RankChildState::kStarting;
  child.process =
      std::make_unique<stream_descriptor>(loop_.io(), started->process.process.Release());
  child.link = std::make_unique<stream_descriptor>(loop_.io(), started->link.Release());
  LogDebug("a rank's process was started", child.Fields());
  WatchProcess(self);
  ReadWords(self);
}

void RankChildren::WatchProcess(const std::shared_ptr<Watched>& child) {
  child->process->async_wait(stream_descriptor::wait_read,
                             [this, child](const boost::system::error_code& fault) {
                               if (!fault && !child->ended) OnEnd(child);
                             });
}

void RankChildren::ReadWords(const std::shared_ptr<Watched>& child) {
  child->link->async_wait(
      stream_descriptor::wait_read,
      [this, child, start = child->starts](const boost::system::error_code& fault) {
        const bool gone = child->ended || child->link == nullptr || child->starts != start;
        if (fault || gone) return;
        std::array<char, kWordBytesMax> word{};
        const ssize_t bytes =
            recv(child->link->native_handle(), word.data(), word.size(), MSG_DONTWAIT);
        if (bytes == 0 || (bytes < 0 && errno != EAGAIN)) return;  // its end comes by the pidfd
        if (bytes > 0) OnWord(*child, std::string_view(word.data(), static_cast<size_t>(bytes)));
        ReadWords(child);
      });
}

void RankChildren::OnWord(Watched& child, std::string_view word) {
  child.silent_intervals = 0;
  if (word.front() == kWordJoined) child.state = RankChildState::kJoined;
  if (word.front() == kWordParted) child.state = RankChildState::kStarting;
  if (word.front() == kWordReason) child.reason = std::string(word.substr(1));
}

void RankChildren::OnEnd(const std::shared_ptr<Watched>& child) {
  std::optional<RankDeath> death = Reap(child->process->native_handle());
  if (!death) return WatchProcess(child);
  // What it said last may not have been read yet.
  std::array<char, kWordBytesMax> word{};
  while (true) {
    const ssize_t bytes =
        recv(child->link->native_handle(), word.data(), word.size(), MSG_DONTWAIT);
    if (bytes <= 0) break;
    OnWord(*child, std::string_view(word.data(), static_cast<size_t>(bytes)));
  }
  if (child->killed_for_silence) {
    death = RankDeath{RankDeath::Cause::kHung, "killed by its node, because it hung"};
  }
  OnDeath(child, *death);
}

void RankChildren::OnDeath(const std::shared_ptr<Watched>& child, const RankDeath& death) {
  const int64_t now_us = loop_.NowUs();
  const bool worked = child->state == RankChildState::kJoined;
  const RestartPolicy::Decision decision =
      child->policy.OnDeath(death, WithoutNumber(child->reason, child->pid), worked, now_us);
  child->state = decision.quarantined ? RankChildState::kQuarantined : RankChildState::kDead;
  ++child->deaths;
  if (options_.on_death) options_.on_death(death.cause);
  if (options_.on_own_fault && worked && death.cause == RankDeath::Cause::kOwnFault) {
    options_.on_own_fault(child->spec.replica);
  }
  child->last_death = death.how + (child->reason.empty() ? "" : ": " + child->reason);
  LogFields fields = child->Fields();
  fields.emplace_back("pid", child->pid);
  fields.emplace_back("how", death.how);
  if (!child->reason.empty()) fields.emplace_back("reason", child->reason);
  fields.emplace_back("restart_in_ms", (decision.start_us - now_us) / 1000);
  if (decision.quarantined) {
    LogError("a rank is in quarantine: it died too often by its own doing", fields);
  } else if (decision.repeated) {
    LogDebug("a rank's process has ended as before", fields);
  } else {
    LogWarn("a rank's process has ended, and will be started again", fields);
  }
  child->pid = 0;
  child->process.reset();
  child->link.reset();
  child->restart_timer.expires_after(std::chrono::microseconds(decision.start_us - now_us));
  child->restart_timer.async_wait([this, child](const boost::system::error_code& fault) {
    if (!fault && !child->ended) Start(*child);
  });
}

// Counts intervals in which this loop turned, so that a pause of the whole machine is not held
// against the children.
void RankChildren::CheckSilence() {
  for (const auto& child : children_) {
    if (child->pid == 0 || child->killed_for_silence) continue;
    if (++child->silent_intervals <= options_.silent_intervals_max) continue;
    child->killed_for_silence = true;
    LogWarn("a rank hangs, and is killed", child->Fields());
    kill(child->pid, SIGKILL);
  }
}

void RankChildren::Stop() {
  for (const auto& child : children_) {
    child->ended = true;
    child->restart_timer.cancel();
    // A stopped process (SIGSTOP) would keep the signal until it goes on.
    if (child->pid != 0 && kill(child->pid, SIGTERM) == 0) kill(child->pid, SIGCONT);
  }
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::microseconds(options_.stop_limit_us);
  for (const auto& child : children_) {
    if (child->pid == 0) continue;
    const int process = child->process->native_handle();
    if (!AwaitEnd(process, deadline)) {
      LogWarn("a rank did not end when it was asked to, and is killed", child->Fields());
      kill(child->pid, SIGKILL);
      if (!AwaitEnd(process, std::chrono::steady_clock::now() + kKilledMost)) {
        LogError("a rank that was killed has not ended, and is left behind", child->Fields());
      }
    }
    Reap(process);
    child->pid = 0;
    child->process.reset();
    child->link.reset();
  }
  children_.clear();
}

std::vector<RankChildren::Child> RankChildren::Children() const {
  std::vector<Child> children;
  for (const auto& child : children_) {
    children.push_back({child->spec.replica, child->spec.rank, child->state, child->pid,
                        child->deaths, child->last_death});
  }
  return children;
}

Status RankChildren::Alive() const {
  for (const auto& child : children_) {
    const std::string died = " (it ended last by: " + child->last_death + ")";
    if (child->state == RankChildState::kDead) {
      return Unavailable(child->Name() + " has no process now" + died);
    }
    if (child->state == RankChildState::kQuarantined) {
      return Unavailable(child->Name() + " is in quarantine" + died);
    }
  }
  return OkStatus();
}

Status RankChildren::Ready() const {
  RETURN_IF_ERROR(Alive());
  for (const auto& child : children_) {
    if (child->state != RankChildState::kJoined) {
      return Unavailable(child->Name() + " is loading, or waits for the other ranks");
    }
  }
  return OkStatus();
}

}  // namespace muselet
