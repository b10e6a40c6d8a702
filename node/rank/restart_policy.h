// When the process of a rank that died is started again. Sans-I/O: the supervisor says how and when
// it died, and is told when to try again.
//
// A dead rank comes back after a pause that doubles with each death and is short again after a calm
// minute. Deaths of its own doing (a fatal signal, a fault of the device or of the model) while it
// works, within a minute of each other, send it into quarantine: something is broken that another
// start does not mend. Kills from outside never do, nor deaths while it loads or forms an epoch:
// what it takes from others then may be the reason.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace muselet {

// Exit codes of a rank's process, beside those of every command (1 failed, 2 wrong input).
inline constexpr int kRankExitRefused = 3;  // the leader would not have it
inline constexpr int kRankExitFault = 4;    // its model or its device gave up
inline constexpr int kRankExitStuck = 5;  // an abort did not end in time: only a new process helps

struct RankDeath {
  enum class Cause : uint8_t {
    kOwnFault,  // counts towards quarantine, if it worked
    kOutside,   // a kill that the supervisor did not send, or an end that nobody asked for
    kHung,      // killed by the supervisor for its silence, or by itself for a step that hangs
    kRefused,   // by the leader
    kUnable,    // it could not start: its input, or what the machine gave it
  };
  Cause cause = Cause::kOutside;
  std::string how;  // for the log: "killed by SIGSEGV", "exit code 3"
};

// The words for RankProcessMetrics, by cause.
std::vector<std::string> RankDeathCauses();

// What the wait status of a process says: `exited` with a code, or else killed by a signal.
RankDeath DescribeDeath(bool exited, int code_or_signal);

struct RestartOptions {
  int64_t pause_min_us = 100'000;
  int64_t pause_max_us = 10'000'000;
  int64_t outside_pause_max_us = 1'000'000;  // who is killed from outside is not to blame
  int64_t calm_us = 60'000'000;
  uint32_t own_faults_max = 3;  // within own_faults_us
  int64_t own_faults_us = 60'000'000;
  int64_t quarantine_us = 600'000'000;
};

class RestartPolicy {
 public:
  explicit RestartPolicy(const RestartOptions& options) : options_(options) {}

  struct Decision {
    int64_t start_us = 0;      // not before
    bool quarantined = false;  // the pause is a quarantine
    bool repeated = false;     // died like this the last time too: nothing new to tell
  };
  // Its process runs since `now_us`.
  void OnStart(int64_t now_us) { started_us_ = now_us; }
  // `worked`: it was in an epoch. REQUIRES: OnStart was called since the last death.
  Decision OnDeath(const RankDeath& death, const std::string& reason, bool worked, int64_t now_us);

 private:
  bool InQuarantine(const RankDeath& death, int64_t now_us);

  const RestartOptions options_;
  int64_t started_us_ = 0;
  int64_t pause_us_ = 0;            // the last one; 0 = calm
  std::deque<int64_t> own_faults_;  // of the last minute
  std::string last_told_;
};

}  // namespace muselet
