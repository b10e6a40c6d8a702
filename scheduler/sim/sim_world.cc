#include "scheduler/sim/sim_world.h"

#include <algorithm>
#include <utility>

namespace muselet {

SimWorld::SimWorld(uint64_t seed, const LinkFaults& faults) : random_(seed), faults_(faults) {}

SimProcess SimWorld::AddProcess() {
  processes_.emplace_back();
  return static_cast<SimProcess>(processes_.size() - 1);
}

void SimWorld::Push(int64_t at_us, Event event) {
  uint32_t slot = 0;
  if (free_slots_.empty()) {
    slot = static_cast<uint32_t>(events_.size());
    events_.push_back(std::move(event));
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
    events_[slot] = std::move(event);
  }
  queue_.push({std::max(at_us, now_us_), order_++, slot});
}

void SimWorld::After(SimProcess process, int64_t delay_us, Action action) {
  Push(now_us_ + delay_us, {process, processes_[process].incarnation, std::move(action)});
}

void SimWorld::After(int64_t delay_us, Action action) {
  Push(now_us_ + delay_us, {kNobody, 0, std::move(action)});
}

void SimWorld::Send(SimProcess from, SimProcess to, Action arrival) {
  if (!processes_[to].up) return;
  Link& link = LinkOf(from, to);
  const bool cut = now_us_ < link.cut_until_us;
  if ((cut && link.cut_loses) || random_.Chance(faults_.drop)) return;
  const int copies = random_.Chance(faults_.duplicate) ? 2 : 1;
  for (int copy = 1; copy <= copies; ++copy) {
    int64_t at_us = cut ? link.cut_until_us : now_us_;
    at_us += random_.Between(faults_.delay_us_min, faults_.delay_us_max);
    if (random_.Chance(faults_.late)) at_us += random_.Between(0, faults_.late_us_max);
    if (faults_.ordered) at_us = link.last_arrival_us = std::max(at_us, link.last_arrival_us);
    Push(at_us, {to, processes_[to].incarnation, copy == copies ? std::move(arrival) : arrival});
  }
}

void SimWorld::Crash(SimProcess process) {
  processes_[process].up = false;
  processes_[process].paused_until_us = 0;
}

void SimWorld::Restart(SimProcess process) {
  processes_[process].up = true;
  ++processes_[process].incarnation;
}

void SimWorld::Pause(SimProcess process, int64_t until_us) {
  int64_t& paused_until_us = processes_[process].paused_until_us;
  paused_until_us = std::max(paused_until_us, until_us);
}

void SimWorld::Cut(SimProcess from, SimProcess to, int64_t until_us, bool loses) {
  Link& link = LinkOf(from, to);
  link.cut_until_us = until_us;
  link.cut_loses = loses;
}

void SimWorld::HealAll() {
  for (auto& [key, link] : links_) link.cut_until_us = 0;
  for (Process& process : processes_) process.paused_until_us = 0;
}

bool SimWorld::RunNext(int64_t until_us) {
  if (queue_.empty() || queue_.top().at_us > until_us) return false;
  const Key key = queue_.top();
  queue_.pop();
  now_us_ = key.at_us;
  Event& event = events_[key.slot];
  if (event.process != kNobody) {
    const Process& process = processes_[event.process];
    const bool alive = process.up && process.incarnation == event.incarnation;
    if (alive && now_us_ < process.paused_until_us) {
      // With its old place among those of that time.
      queue_.push({process.paused_until_us, key.order, key.slot});
      return true;
    }
    if (!alive) event.action = nullptr;
  }
  const Action action = std::exchange(event.action, nullptr);
  free_slots_.push_back(key.slot);
  ++event_count_;
  if (action) action();
  return true;
}

void SimWorld::RunUntil(int64_t until_us) {
  while (RunNext(until_us)) {
  }
  now_us_ = std::max(now_us_, until_us);
}

bool SimWorld::RunUntil(int64_t until_us, const std::function<bool()>& done) {
  while (RunNext(until_us)) {
    if (done()) return true;
  }
  now_us_ = std::max(now_us_, until_us);
  return done();
}

}  // namespace muselet
