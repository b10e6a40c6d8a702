// The times by which a leader and its ranks take each other for lost. Both sides use the same.
#pragma once

#include <algorithm>
#include <cstdint>

namespace muselet {

struct EpochTiming {
  int64_t heartbeat_interval_us = 250'000;
  int64_t silence_us = 3'000'000;  // then the other side is gone
  // All join within this; each time it is over, the log names who is missing, and the wait goes on.
  int64_t join_timeout_us = 60'000'000;
  int64_t form_timeout_us = 30'000'000;  // from Form to all Ready, or nobody starts
  int64_t step_timeout_min_us = 3'000'000;
  int64_t step_factor = 8;  // of its predicted time a step may take, if that is longer
  // A rank that cannot end an aborted epoch within this exits.
  int64_t teardown_timeout_us = 5'000'000;
};

// How long a rank may be without progress on a step.
inline int64_t StepTimeoutUs(const EpochTiming& timing, int64_t predicted_us) {
  const int64_t predicted = std::clamp<int64_t>(predicted_us, 0, 3'600'000'000);
  return std::max(timing.step_timeout_min_us, timing.step_factor * predicted);
}

// How often the owners call OnTick.
inline int64_t EpochTickUs(const EpochTiming& timing) {
  return std::max<int64_t>(std::min(timing.heartbeat_interval_us, timing.silence_us / 8), 1);
}

}  // namespace muselet
