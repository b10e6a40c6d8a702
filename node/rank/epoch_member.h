// A rank's half of the protocol that makes processes one replica (node/rank/epoch_leader has the
// leader's). A protocol core: messages, ticks and notices in, messages and events out; no socket,
// clock or thread.
//
//              Form            GroupsMade           Start
//   kJoining ---------> kForming ---------> kReady ---------> kRunning
//      ^                   |                   |                 |
//      |      TornDown     v                   v                 |
//      +--------------- kEnding <--------------+-----------------+   Abort, a fault, a leader that
//                                                                    is gone or silent
//
// The owner does what the events say, in order:
//   kMakeGroups  makes its groups, through a RankRendezvous whose Put is EpochMember::Put and whose
//                values are the kValue events; then GroupsMade or Fail
//   kStart       is ready for steps
//   kStep        computes the step; then Done. Steps come in order, without gaps
//   kEnd         aborts its groups, ends what computes and forgets all KV; then TornDown. The
//                weights stay
//   kWaiting     logs the text: the leader is away (said soon), or others are missing
//   kExit        logs the text and ends the process: it was refused (refused), or the epoch could
//                not be ended in time
// Calls that name an epoch which is over meanwhile change nothing. The owner sends what it is told
// to, in order; a Send that fails needs no notice: Join is repeated, and a broken connection ends
// the epoch through OnConnection. One owner, no locks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "node/rank/epoch_timing.h"
#include "node/rank/rank_messages.h"

namespace muselet {

struct MemberEvent {
  enum class Kind : uint8_t { kMakeGroups, kValue, kStart, kStep, kEnd, kWaiting, kExit };
  Kind kind;
  uint64_t epoch = 0;
  std::string text;         // kEnd, kWaiting, kExit: why
  bool on_purpose = false;  // kEnd: the leader stops, nothing went wrong
  bool refused = false;     // kExit
  RankForm form;            // kMakeGroups
  std::string key;          // kValue
  std::string value;        // kValue
  RankStep step;            // kStep
};

struct MemberOutput {
  std::vector<RankMessage> send;
  std::vector<MemberEvent> events;  // in order
};

// How the step thread does, for the heartbeat.
struct RankProgressReport {
  uint64_t steps = 0;   // done in this epoch
  int64_t busy_us = 0;  // how long the step that is going on has computed; 0 = none is
};

class EpochMember {
 public:
  // `self`: session and epoch_seen are filled here. `leader`: its endpoint, for messages.
  EpochMember(RankJoin self, uint32_t rank_count, std::string leader, const EpochTiming& timing,
              int64_t now_us);

  MemberOutput OnMessage(RankMessage message, int64_t now_us);
  // What came is no message: this end and that one do not understand each other.
  MemberOutput OnMalformed(const std::string& reason, int64_t now_us);
  // What came has another version of this wire: without an epoch the rank exits as one refused.
  MemberOutput OnOtherVersion(const std::string& reason, int64_t now_us);
  // Of the RawDealer.
  MemberOutput OnConnection(bool connected, int64_t now_us);
  // Every EpochTickUs.
  MemberOutput OnTick(const RankProgressReport& progress, int64_t now_us);

  // kInvalidArgument: key or value is too long; kUnavailable: the epoch is over. The value comes
  // back as a kValue event, as it does on the other ranks.
  Result<MemberOutput> Put(uint64_t epoch, const std::string& key, std::string value);
  MemberOutput GroupsMade(uint64_t epoch);
  // The oldest step that is not done is; `done` needs no numbers. REQUIRES: there is one.
  MemberOutput Done(uint64_t epoch, RankDone done, int64_t now_us);
  // The rank cannot go on in this epoch: its groups cannot be made, or broke.
  MemberOutput Fail(uint64_t epoch, const std::string& reason, int64_t now_us);
  // After kEnd: nothing of the epoch is left here.
  MemberOutput TornDown(uint64_t epoch, int64_t now_us);

  uint64_t epoch() const { return epoch_; }  // the last one; 0 = none yet
  // Whether `epoch` is alive as far as this rank knows.
  bool alive(uint64_t epoch) const { return epoch == epoch_ && InEpoch(); }

 private:
  enum class State : uint8_t { kJoining, kForming, kReady, kRunning, kEnding, kExited };

  bool InEpoch() const {
    return state_ == State::kForming || state_ == State::kReady || state_ == State::kRunning;
  }
  void On(RankForm form, int64_t now_us, MemberOutput& out);
  void On(RankValue value, MemberOutput& out);
  void On(const RankStart& start, int64_t now_us, MemberOutput& out);
  void On(RankStep step, int64_t now_us, MemberOutput& out);
  void On(const LeaderAlive& alive, int64_t now_us, MemberOutput& out);
  void Join(int64_t now_us, MemberOutput& out);
  void TickJoining(int64_t now_us, MemberOutput& out);
  // Says Fault, if the leader may still listen, and ends the epoch.
  void End(const std::string& reason, bool tell, int64_t now_us, MemberOutput& out);
  void BeginJoining(int64_t now_us);
  void TellWaiting(bool silent, int64_t now_us, MemberOutput& out);
  void Exit(const std::string& reason, bool refused, MemberOutput& out);

  RankJoin self_;
  const uint32_t rank_count_;
  const std::string leader_;
  const EpochTiming timing_;
  State state_ = State::kJoining;
  uint64_t epoch_ = 0;
  uint64_t steps_taken_ = 0;
  uint64_t steps_done_ = 0;
  int64_t heard_us_ = 0;      // of the leader
  bool answered_ = false;     // this session's Join
  std::string waiting_for_;   // as the leader says
  int64_t next_send_us_ = 0;  // Join or Alive
  // kJoining: to say what it waits for; kEnding: to exit.
  int64_t deadline_us_ = 0;
  int64_t joining_since_us_ = 0;
  bool told_silence_ = false;   // since it joins, or last heard of the leader
  int64_t began_us_ = 0;        // the epoch
  int64_t retry_us_ = 0;        // no Join before this
  int64_t retry_pause_us_ = 0;  // after the last epoch
  int64_t last_tick_us_ = 0;
};

}  // namespace muselet
