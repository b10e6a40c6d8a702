// The processes of the ranks on one node: starts them, sees how they die, and starts them again
// (node/rank/restart_policy). No rank outlives its node: the kernel kills it when the node dies,
// however that happens, and the supervisor when the node stops.
//
// A child is this very program with the arguments `rank ...`. It inherits nothing but the standard
// streams and two descriptors: its config as YAML, and a socket to its supervisor, on which it
// shows that its loop turns, says when it has joined an epoch, and why it goes. It has a process
// group of its own, so that Ctrl-C on a terminal reaches the node alone, which drains first.
//
// Everything on the loop's thread, or while the loop does not run. The thread that starts a child
// must live as long as it: the kernel takes the end of that thread for the end of the parent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "comms/event_loop.h"
#include "node/rank/restart_policy.h"

namespace muselet {

struct RankChildSpec {
  std::string replica;
  uint32_t rank = 0;
  std::string leader;       // the endpoint where it joins
  std::string config_yaml;  // the whole effective config
};

struct RankChildrenOptions {
  std::string program = "/proc/self/exe";
  RestartOptions restart;
  // A child that was not heard this many intervals long hangs, and is killed.
  int64_t silence_interval_us = 500'000;
  uint32_t silent_intervals_max = 8;
  int64_t stop_limit_us = 3'000'000;               // from SIGTERM to SIGKILL
  std::function<void(RankDeath::Cause)> on_death;  // may be empty
  // A rank of this replica that had joined died by its own fault; may be empty.
  std::function<void(const std::string& replica)> on_own_fault = nullptr;
};

enum class RankChildState : uint8_t {
  kStarting,     // loads its slice, or waits for the others
  kJoined,       // works
  kDead,         // will be started again
  kQuarantined,  // will be started again, but not soon
};

class RankChildren {
 public:
  struct Child {
    std::string replica;
    uint32_t rank = 0;
    RankChildState state = RankChildState::kDead;
    int pid = 0;  // 0 = it has no process now
    uint64_t deaths = 0;
    std::string last_death;  // how, and why; "" = none yet
  };

  // The loop outlives it.
  RankChildren(EventLoop& loop, RankChildrenOptions options);
  ~RankChildren();  // Stop
  RankChildren(const RankChildren&) = delete;
  RankChildren& operator=(const RankChildren&) = delete;

  // Starts a rank and keeps it running.
  void Add(RankChildSpec spec);
  // Ends all of them: SIGTERM, after a while SIGKILL. Returns when none is left, except those that
  // not even that ends soon: they are logged. Idempotent.
  void Stop();

  bool empty() const { return children_.empty(); }
  std::vector<Child> Children() const;
  // OK if all of them have a process; otherwise says which has none, and why.
  Status Alive() const;
  // OK if all of them have joined, too.
  Status Ready() const;

 private:
  struct Watched;
  void Start(Watched& child);
  void WatchProcess(const std::shared_ptr<Watched>& child);
  void ReadWords(const std::shared_ptr<Watched>& child);
  void OnWord(Watched& child, std::string_view word);
  void OnEnd(const std::shared_ptr<Watched>& child);
  void OnDeath(const std::shared_ptr<Watched>& child, const RankDeath& death);
  void CheckSilence();

  EventLoop& loop_;
  const RankChildrenOptions options_;
  std::vector<std::shared_ptr<Watched>> children_;
  PeriodicTimer silence_timer_;
  bool stopping_ = false;
};

}  // namespace muselet
