// The leader and three ranks on virtual time, with connections that break, messages that are late
// or lost with their connection, processes that die, stand still or hang, and strangers that talk
// to the leader: thousands of seeds, each a different run.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "node/rank/epoch_leader.h"
#include "node/rank/epoch_member.h"
#include "tests/node/rank/rank_fixture.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

constexpr uint32_t kRanks = 3;
constexpr int64_t kTickUs = 25'000;
constexpr int64_t kSecond = 1'000'000;
constexpr int64_t kChaosUs = 30 * kSecond;
constexpr int64_t kNever = INT64_MAX;

EpochTiming SimulatedTiming() {
  EpochTiming timing;
  timing.form_timeout_us = 4 * kSecond;
  timing.join_timeout_us = 5 * kSecond;
  return timing;
}

struct Packet {
  int64_t at_us = 0;
  RankMessage message;
};

// A rank's process with its connection and its step thread.
struct Process {
  std::unique_ptr<EpochMember> member;  // null: dead
  std::string peer;
  bool connected = false;
  int64_t reconnect_us = 0;
  int64_t start_us = 0;  // when dead: comes back
  int64_t paused_until_us = 0;
  int64_t next_tick_us = 0;
  std::deque<Packet> to_rank;
  std::deque<std::pair<int64_t, bool>> notices;
  uint64_t live_epoch = 0;  // its groups, not torn down
  int64_t groups_us = kNever;
  int64_t torn_us = kNever;
  std::deque<RankStep> steps;
  int64_t step_done_us = kNever;
};

class World {
 public:
  explicit World(uint32_t seed)
      : random_(seed), leader_(testing::TestEpochPlan(kRanks), SimulatedTiming(), 0) {}

  void Run() {
    while (now_us_ < kChaosUs && !::testing::Test::HasFatalFailure()) Turn(/*chaos=*/true);
    const uint64_t before = done_;
    const int64_t end_us = now_us_ + 90 * kSecond;
    while (now_us_ < end_us && done_ < before + 50 && !::testing::Test::HasFatalFailure())
      Turn(/*chaos=*/false);
    EXPECT_GE(done_, before + 50) << "no progress in 90 s of calm; epoch " << leader_.epoch();
  }

  uint64_t done() const { return done_; }
  uint64_t epochs() const { return epochs_; }
  uint64_t lost_plans() const { return lost_plans_; }

 private:
  uint32_t Below(uint32_t limit) { return random_() % limit; }
  bool OneIn(uint32_t count) { return Below(count) == 0; }

  void Turn(bool chaos) {
    now_us_ += kTickUs;
    for (uint32_t rank = 0; rank < kRanks; ++rank) {
      if (chaos) Harm(rank);
      TurnNetwork(rank);
      TurnProcess(rank);
    }
    if (chaos && OneIn(400)) leader_paused_until_us_ = now_us_ + Below(4000) * 1000;
    if (now_us_ >= leader_paused_until_us_) TurnLeader(chaos);
  }

  // ---- What goes wrong

  void Harm(uint32_t rank) {
    Process& process = processes_[rank];
    if (process.member == nullptr) return;
    if (OneIn(300)) Die(rank);
    if (OneIn(200)) Break(rank);
    if (OneIn(500)) process.paused_until_us = now_us_ + Below(6000) * 1000;
    if (OneIn(800)) process.step_done_us = kNever;  // hangs
  }
  void Break(uint32_t rank) {
    Process& process = processes_[rank];
    if (!process.connected) return;
    process.connected = false;
    process.reconnect_us = now_us_ + Below(1500) * 1000;
    // What either side has already received is still read.
    process.to_rank.resize(Below(static_cast<uint32_t>(process.to_rank.size()) + 1));
    std::deque<Packet>& to_leader = to_leader_[process.peer];
    to_leader.resize(Below(static_cast<uint32_t>(to_leader.size()) + 1));
    process.notices.emplace_back(now_us_ + Below(200) * 1000, false);
    disconnects_.insert(now_us_ + Below(200) * 1000);
  }
  void Die(uint32_t rank) {
    Break(rank);
    Process fresh;
    fresh.start_us = now_us_ + Below(2000) * 1000;
    processes_[rank] = std::move(fresh);
  }

  // ---- A rank

  void Start(uint32_t rank) {
    Process& process = processes_[rank];
    RankJoin join = testing::TestJoin(rank, ++instances_);
    process.member =
        std::make_unique<EpochMember>(join, kRanks, "leader", SimulatedTiming(), now_us_);
    process.peer = "p" + std::to_string(instances_);
    process.reconnect_us = now_us_ + Below(300) * 1000;
  }

  void TurnNetwork(uint32_t rank) {
    Process& process = processes_[rank];
    if (process.member == nullptr) {
      if (now_us_ >= process.start_us) Start(rank);
      return;
    }
    if (process.connected || now_us_ < process.reconnect_us) return;
    process.connected = true;
    const int64_t told_us = process.notices.empty() ? 0 : process.notices.back().first;
    process.notices.emplace_back(std::max(now_us_ + Below(50) * 1000, told_us), true);
  }

  void TurnProcess(uint32_t rank) {
    Process& process = processes_[rank];
    if (process.member == nullptr || now_us_ < process.paused_until_us) return;
    while (process.member != nullptr && !process.notices.empty() &&
           process.notices.front().first <= now_us_) {
      const bool connected = process.notices.front().second;
      process.notices.pop_front();
      Take(rank, process.member->OnConnection(connected, now_us_));
    }
    while (process.member != nullptr && !process.to_rank.empty() &&
           process.to_rank.front().at_us <= now_us_) {
      RankMessage message = std::move(process.to_rank.front().message);
      process.to_rank.pop_front();
      Take(rank, process.member->OnMessage(std::move(message), now_us_));
    }
    if (process.member != nullptr) TurnWorker(rank);
    if (process.member == nullptr || now_us_ < process.next_tick_us) return;
    process.next_tick_us = now_us_ + 250'000;
    Take(rank, process.member->OnTick({}, now_us_));
  }

  void TurnWorker(uint32_t rank) {
    Process& process = processes_[rank];
    if (now_us_ >= process.groups_us) {
      process.groups_us = kNever;
      const uint64_t epoch = process.live_epoch;
      Take(rank, OneIn(20) ? process.member->Fail(epoch, "no groups", now_us_)
                           : process.member->GroupsMade(epoch));
    }
    if (now_us_ >= process.torn_us) {
      process.torn_us = kNever;
      const uint64_t epoch = std::exchange(process.live_epoch, 0);
      Take(rank, process.member->TornDown(epoch, now_us_));
    }
    if (process.steps.empty() || now_us_ < process.step_done_us) return;
    const RankStep& step = process.steps.front();
    const auto key = std::pair(step.epoch, step.step);
    computed_[key].insert(rank);
    const bool samples = rank + 1 == kRanks;
    if (samples && computed_[key].size() < kRanks) return;
    RankDone done;
    done.step_us = static_cast<int64_t>(step.plan.number);
    if (samples) done.result = testing::TestResult();
    process.steps.pop_front();
    BeginStep(process);
    Take(rank, process.member->Done(key.first, std::move(done), now_us_));
  }
  void BeginStep(Process& process) {
    process.step_done_us = process.steps.empty() ? kNever : now_us_ + (1 + Below(60)) * 1000;
  }

  void Take(uint32_t rank, MemberOutput out) {
    Process& process = processes_[rank];
    for (RankMessage& message : out.send) {
      if (process.connected) Push(to_leader_[process.peer], std::move(message));
    }
    for (MemberEvent& event : out.events) {
      if (process.member != nullptr) Handle(rank, event);
    }
  }

  void Push(std::deque<Packet>& queue, RankMessage message) {
    const int64_t last_us = queue.empty() ? 0 : queue.back().at_us;
    const int64_t delay_us = OneIn(50) ? Below(800) * 1000 : Below(30) * 1000;
    queue.push_back({std::max(last_us, now_us_ + delay_us), std::move(message)});
  }

  void Handle(uint32_t rank, MemberEvent& event) {
    Process& process = processes_[rank];
    switch (event.kind) {
      case MemberEvent::Kind::kMakeGroups:
        // All who live have left every other epoch before one begins.
        for (const Process& other : processes_) {
          ASSERT_TRUE(other.live_epoch == 0 || other.live_epoch == event.epoch)
              << "epoch " << event.epoch << " begins while " << other.live_epoch << " is alive";
        }
        ASSERT_EQ(process.live_epoch, 0U);
        process.live_epoch = event.epoch;
        process.groups_us = now_us_ + Below(500) * 1000;
        break;
      case MemberEvent::Kind::kStep:
        ASSERT_EQ(event.epoch, process.live_epoch);
        process.steps.push_back(std::move(event.step));
        if (process.steps.size() == 1) BeginStep(process);
        break;
      case MemberEvent::Kind::kEnd:
        process.steps.clear();
        process.groups_us = process.step_done_us = kNever;
        process.live_epoch = event.epoch;
        process.torn_us = OneIn(50) ? kNever : now_us_ + Below(400) * 1000;
        break;
      case MemberEvent::Kind::kExit:
        Die(rank);
        break;
      case MemberEvent::Kind::kStart:
      case MemberEvent::Kind::kValue:
      case MemberEvent::Kind::kWaiting:
        break;
    }
  }

  // ---- The leader

  void TurnLeader(bool chaos) {
    while (!disconnects_.empty() && *disconnects_.begin() <= now_us_) {
      disconnects_.erase(disconnects_.begin());
      Deliver(leader_.OnDisconnect());
    }
    for (auto& [peer, queue] : to_leader_) {
      while (!queue.empty() && queue.front().at_us <= now_us_) {
        RankMessage message = std::move(queue.front().message);
        queue.pop_front();
        Deliver(leader_.OnMessage(peer, std::move(message), now_us_));
      }
    }
    if (chaos && OneIn(20)) Babble();
    if (now_us_ >= leader_tick_us_) {
      leader_tick_us_ = now_us_ + 250'000;
      Deliver(leader_.OnTick(now_us_));
    }
    while (leader_.formed() && outstanding_.size() < 3) {
      StepPlan plan = testing::TestPlan(++plans_);
      outstanding_.push_back(plan.number);
      Deliver(leader_.Submit(plan, {}, now_us_));
    }
  }

  // Somebody who is no rank, or now and then one of the ranks, talks nonsense.
  void Babble() {
    const std::vector<RankMessage> words = {
        RankDone{leader_.epoch(), 1, 1, {}, testing::TestResult()},
        RankReady{leader_.epoch()},
        RankPut{leader_.epoch(), "k", "v"},
        RankFault{leader_.epoch(), "noise"},
        RankStart{1},
        RankAlive{1, 2, 3}};
    Deliver(leader_.OnMessage("stranger", words[Below(words.size())], now_us_));
    Deliver(leader_.OnMalformed("stranger", "noise", now_us_));
    RankJoin wrong = testing::TestJoin(Below(kRanks + 2), 1);
    wrong.agreement.model_digest = "other";
    Deliver(leader_.OnMessage("stranger", wrong, now_us_));
    if (OneIn(30)) Deliver(leader_.OnMalformed(processes_[Below(kRanks)].peer, "noise", now_us_));
  }

  void Deliver(EpochOutput out) {
    std::vector<std::string> unreachable;
    for (EpochOutgoing& outgoing : out.send) {
      for (const std::string& peer : outgoing.peers) {
        Process* to = nullptr;
        for (Process& process : processes_) {
          if (process.connected && process.peer == peer) to = &process;
        }
        if (to != nullptr) {
          Push(to->to_rank, outgoing.message);
        } else {
          unreachable.push_back(peer);
        }
      }
    }
    for (EpochEvent& event : out.events) HandleLeader(event);
    for (const std::string& peer : unreachable)
      Deliver(leader_.OnUnreachable(peer, "not connected", now_us_));
  }

  void HandleLeader(const EpochEvent& event) {
    if (event.kind == EpochEvent::Kind::kFormed) {
      ++epochs_;
      ASSERT_GT(event.epoch, formed_epoch_);
      formed_epoch_ = event.epoch;
    } else if (event.kind == EpochEvent::Kind::kDone) {
      ++done_;
      ASSERT_EQ(event.epoch, formed_epoch_);
      ASSERT_EQ(event.done.epoch, formed_epoch_);
      ASSERT_FALSE(outstanding_.empty());
      ASSERT_EQ(static_cast<uint64_t>(event.done.step_us), outstanding_.front());
      outstanding_.pop_front();
    } else if (event.kind == EpochEvent::Kind::kLost) {
      lost_plans_ += outstanding_.size();
      outstanding_.clear();
    }
  }

  std::mt19937 random_;
  int64_t now_us_ = 0;
  EpochLeader leader_;
  int64_t leader_paused_until_us_ = 0;
  int64_t leader_tick_us_ = 0;
  std::array<Process, kRanks> processes_;
  std::map<std::string, std::deque<Packet>> to_leader_;  // by connection
  std::multiset<int64_t> disconnects_;
  std::map<std::pair<uint64_t, uint64_t>, std::set<uint32_t>> computed_;  // by epoch and step
  std::deque<uint64_t> outstanding_;                                      // numbers of plans
  uint64_t plans_ = 0, done_ = 0, epochs_ = 0, lost_plans_ = 0, formed_epoch_ = 0;
  uint64_t instances_ = 0;
};

TEST(EpochSimulation, MakesProgressOrANewEpochWhateverHappens) {
  uint64_t epochs = 0, done = 0, lost = 0;
  const uint32_t seeds = testing::SeedCount(1000);
  for (uint32_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World world(seed);
    world.Run();
    if (::testing::Test::HasFailure()) return;
    epochs += world.epochs();
    done += world.done();
    lost += world.lost_plans();
  }
  // The runs are neither all calm nor all chaos.
  EXPECT_GT(epochs, 2 * seeds);
  EXPECT_GT(done, 50 * seeds);
  EXPECT_GT(lost, seeds);
}

}  // namespace
}  // namespace muselet
