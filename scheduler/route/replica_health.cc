#include "scheduler/route/replica_health.h"

#include <algorithm>
#include <cstddef>

namespace muselet {
namespace {

// A replica on which a fifth of the attempts is given up is ejected in time, one on which all are
// after six.
constexpr uint32_t kFailureScore = 4;
constexpr uint32_t kFailureScoreMax = 16;
constexpr int64_t kOneMomentUs = 1'000'000;
constexpr uint64_t kProbeSteps = 8;
constexpr int64_t kEjectTimeMaxFactor = 16;

void Enter(PlacementHealth& health, HealthState state, int64_t now_us) {
  health.state = state;
  health.since_us = now_us;
}

bool Eject(PlacementHealth& health, const RouteOptions& options, int64_t now_us) {
  const int64_t longest_us = options.eject_time_us * kEjectTimeMaxFactor;
  health.eject_time_us = health.eject_time_us == 0 ? options.eject_time_us
                                                   : std::min(2 * health.eject_time_us, longest_us);
  health.failures = 0;
  Enter(health, HealthState::kEjected, now_us);
  return true;
}

}  // namespace

double MedianOf(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

bool JudgeSpeed(PlacementHealth& health, const ReplicaSpeed& speed, bool may_eject,
                const RouteOptions& options, int64_t now_us) {
  if (health.state == HealthState::kEjected) return false;
  const bool known = speed.cost_us > 0 && speed.peers_us > 0 && options.slow_factor > 0;
  const bool slow = known && speed.cost_us > options.slow_factor * speed.peers_us;
  if (health.state == HealthState::kProbing) {
    if (speed.steps < health.probed_steps + kProbeSteps) return false;
    if (slow && may_eject) return Eject(health, options, now_us);
    Enter(health, HealthState::kHealthy, now_us);
    return false;
  }
  // What it did long ago is forgiven.
  if (health.state == HealthState::kHealthy && now_us - health.since_us > 4 * health.eject_time_us)
    health.eject_time_us = 0;
  if (!slow) {
    health.slow_once = false;
    if (health.state == HealthState::kAvoided) Enter(health, HealthState::kHealthy, now_us);
    return false;
  }
  if (health.state == HealthState::kHealthy) {
    if (health.slow_once) Enter(health, HealthState::kAvoided, now_us);
    health.slow_once = true;
    return false;
  }
  if (!may_eject || now_us - health.since_us < options.eject_after_us) return false;
  return Eject(health, options, now_us);
}

bool CountFailure(PlacementHealth& health, bool may_eject, const RouteOptions& options,
                  int64_t now_us) {
  // A lost connection fails all that ran there at once.
  if (health.failed_us != 0 && now_us - health.failed_us < kOneMomentUs) return false;
  health.failed_us = now_us;
  health.failures += kFailureScore;
  if (!may_eject || options.slow_factor <= 0 || health.state == HealthState::kEjected) return false;
  if (health.failures <= kFailureScoreMax && health.state != HealthState::kProbing) return false;
  return Eject(health, options, now_us);
}

void CountEnd(PlacementHealth& health) {
  if (health.failures > 0) --health.failures;
}

void EndEjection(PlacementHealth& health, uint64_t steps, int64_t now_us) {
  if (health.state != HealthState::kEjected || now_us - health.since_us < health.eject_time_us)
    return;
  health.probed_steps = steps;
  Enter(health, HealthState::kProbing, now_us);
}

}  // namespace muselet
