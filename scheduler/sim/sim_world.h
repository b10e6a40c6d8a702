// Virtual time: a clock that jumps from event to event, processes that crash, stand still and start
// again, and the links between them. What runs in a process is the affair of whoever schedules it:
// actions are closures, run one after the other in the order of their times (then of their making).
//
// A link is what ZeroMQ over TCP gives, or worse, as LinkFaults says. What is on its way to a
// process that crashes is lost; a process that is paused gets it all afterwards, in order.
// Deterministic: the seed decides everything. Single-threaded.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <unordered_map>
#include <vector>

#include "scheduler/sim/sim_random.h"

namespace muselet {

using SimProcess = uint32_t;

// Of every message, independently.
struct LinkFaults {
  int64_t delay_us_min = 100;
  int64_t delay_us_max = 100;
  double late = 0;  // takes up to late_us_max instead
  int64_t late_us_max = 0;
  double drop = 0;
  double duplicate = 0;
  bool ordered = true;  // false: a message may overtake another one
};

class SimWorld {
 public:
  using Action = std::function<void()>;

  SimWorld(uint64_t seed, const LinkFaults& faults);

  int64_t now_us() const { return now_us_; }
  SimRandom& random() { return random_; }
  void SetFaults(const LinkFaults& faults) { faults_ = faults; }

  // A new process, up.
  SimProcess AddProcess();
  bool up(SimProcess process) const { return processes_[process].up; }
  // Grows with each start.
  uint32_t incarnation(SimProcess process) const { return processes_[process].incarnation; }

  // Runs `action` in the process after `delay_us`, unless that has crashed meanwhile.
  void After(SimProcess process, int64_t delay_us, Action action);
  // Runs it whatever becomes of processes.
  void After(int64_t delay_us, Action action);
  // The action is the arrival of a message: it runs at `to` once, twice or never.
  void Send(SimProcess from, SimProcess to, Action arrival);

  // Nothing of what it was to do or to get happens any more.
  void Crash(SimProcess process);
  void Restart(SimProcess process);
  void Pause(SimProcess process, int64_t until_us);
  // Nothing gets from one to the other until then; what is sent meanwhile is lost, or arrives
  // afterwards.
  void Cut(SimProcess from, SimProcess to, int64_t until_us, bool loses);
  void HealAll();  // ends all cuts and pauses; what they hold back arrives in its time

  // Runs what is due until `until_us`, or until `done` says so (asked after each event).
  void RunUntil(int64_t until_us);
  bool RunUntil(int64_t until_us, const std::function<bool()>& done);
  uint64_t event_count() const { return event_count_; }

 private:
  static constexpr SimProcess kNobody = ~SimProcess{0};
  struct Process {
    bool up = true;
    uint32_t incarnation = 1;
    int64_t paused_until_us = 0;
  };
  struct Event {
    SimProcess process = kNobody;
    uint32_t incarnation = 0;
    Action action;
  };
  struct Key {
    int64_t at_us;
    uint64_t order;
    uint32_t slot;
    bool operator>(const Key& other) const {
      return at_us != other.at_us ? at_us > other.at_us : order > other.order;
    }
  };
  struct Link {
    int64_t last_arrival_us = 0;
    int64_t cut_until_us = 0;
    bool cut_loses = false;
  };

  void Push(int64_t at_us, Event event);
  // Runs the next event. False: none is due by then.
  bool RunNext(int64_t until_us);
  Link& LinkOf(SimProcess from, SimProcess to) { return links_[uint64_t{from} << 32 | to]; }

  SimRandom random_;
  LinkFaults faults_;
  int64_t now_us_ = 0;
  uint64_t order_ = 0;
  uint64_t event_count_ = 0;
  std::vector<Process> processes_;
  std::unordered_map<uint64_t, Link> links_;
  std::vector<Event> events_;  // by slot
  std::vector<uint32_t> free_slots_;
  std::priority_queue<Key, std::vector<Key>, std::greater<>> queue_;
};

}  // namespace muselet
