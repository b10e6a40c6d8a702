#include "node/rank/restart_policy.h"

#include <algorithm>
#include <csignal>
#include <cstring>

namespace muselet {
namespace {

bool IsOwnFault(int signal) {
  switch (signal) {
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGABRT:
    case SIGTRAP:
    case SIGSYS:
      return true;
    default:
      return false;
  }
}

RankDeath DescribeExit(int code) {
  const std::string how = "exit code " + std::to_string(code);
  switch (code) {
    case 0:
      return {RankDeath::Cause::kOutside, how + ": it left unasked"};
    case kRankExitRefused:
      return {RankDeath::Cause::kRefused, how + ": its leader refuses it"};
    case kRankExitFault:
      return {RankDeath::Cause::kOwnFault, how + ": a fault of its model or device"};
    case kRankExitStuck:
      return {RankDeath::Cause::kHung, how + ": a step could not be ended"};
    default:
      return {RankDeath::Cause::kUnable, how + ": it cannot work"};
  }
}

}  // namespace

std::vector<std::string> RankDeathCauses() {
  return {"own_fault", "outside", "hung", "refused", "unable"};
}

RankDeath DescribeDeath(bool exited, int code_or_signal) {
  if (exited) return DescribeExit(code_or_signal);
  const char* name = sigabbrev_np(code_or_signal);
  const std::string how =
      "killed by " +
      (name == nullptr ? "signal " + std::to_string(code_or_signal) : "SIG" + std::string(name));
  if (IsOwnFault(code_or_signal)) return {RankDeath::Cause::kOwnFault, how};
  const bool maybe_memory = code_or_signal == SIGKILL;
  return {RankDeath::Cause::kOutside,
          how + (maybe_memory ? " from outside, or by the kernel because memory ran out"
                              : " from outside")};
}

RestartPolicy::Decision RestartPolicy::OnDeath(const RankDeath& death, const std::string& reason,
                                               bool worked, int64_t now_us) {
  if (now_us - started_us_ >= options_.calm_us) {
    pause_us_ = 0;
    last_told_.clear();
  }
  Decision decision;
  const std::string told = death.how + "\n" + reason;
  const bool kill = death.cause == RankDeath::Cause::kOutside;
  decision.repeated = !kill && told == last_told_;
  last_told_ = told;
  if (worked && InQuarantine(death, now_us)) {
    pause_us_ = 0;
    decision.quarantined = true;
    decision.repeated = false;
    decision.start_us = now_us + options_.quarantine_us;
    return decision;
  }
  const int64_t pause_max_us = kill ? options_.outside_pause_max_us : options_.pause_max_us;
  pause_us_ = std::min(std::max(pause_us_ * 2, options_.pause_min_us), pause_max_us);
  decision.start_us = now_us + pause_us_;
  return decision;
}

bool RestartPolicy::InQuarantine(const RankDeath& death, int64_t now_us) {
  if (death.cause != RankDeath::Cause::kOwnFault) return false;
  own_faults_.push_back(now_us);
  while (own_faults_.front() < now_us - options_.own_faults_us) own_faults_.pop_front();
  if (own_faults_.size() < options_.own_faults_max) return false;
  own_faults_.clear();
  return true;
}

}  // namespace muselet
