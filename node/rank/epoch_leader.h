// The leader's half of the protocol that makes processes one replica: who has joined, which epoch
// is alive, which steps are outstanding, who is lost. A protocol core: messages, ticks and notices
// in, messages and events out; no socket, clock or thread.
//
//              all have joined          all are ready
//   kJoining ------------------> kForming ----------> kRunning
//      ^                            |                    |
//      +----------------------------+--------------------+   a rank is lost, or not ready in time
//
// Rules:
//   - A rank is lost when its connection breaks, it is silent for silence_us, it has made no
//     progress on its oldest step for max(step_timeout_min_us, step_factor x predicted), it says
//     Fault, it joins anew, or it says what makes no sense. One lost rank ends the epoch: Abort to
//     all, and the living join again.
//   - Epochs grow, also beyond what any rank has seen of an earlier leader. At most one is alive.
//     Messages that carry another number change nothing; a number not yet given is nonsense.
//   - A Join that does not fit is answered Refused, with both values. A second process for a rank
//     waits until the first is lost, and is refused once that one shows that it lives.
//   - A step is done when all ranks are done with it.
//   - Whoever is no rank may say anything: at most one short answer goes back to each Join, or to
//     each message of another version of this wire.
//
// The owner sends what it is told to, in order, and reports each Send that failed by OnUnreachable.
// One owner, no locks.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "node/rank/epoch_timing.h"
#include "node/rank/rank_messages.h"

namespace muselet {

// What the replica must be made of.
struct EpochPlan {
  std::string replica;
  std::vector<std::string> nodes;  // by rank: the node that starts it; "" = any
  uint32_t sampling_rank = 0;      // its Done carries the result
  uint32_t pipeline = 1;           // a step goes through so many stages, one after the other
  uint32_t vocab_size = 0;
  RankAgreement agreement;
};

// Why an epoch ended, for the metric; the words are in EpochEvent::text.
enum class RankLoss : uint8_t {
  kDisconnected,  // its connection broke, or it does not read
  kSilent,
  kNoProgress,  // alive, but its step does not end
  kFault,       // it said so
  kRejoined,    // it left the epoch by itself
  kNonsense,    // what it said cannot be
  kNotReady,    // no groups in time
};
inline constexpr size_t kRankLossKinds = 7;
std::string_view RankLossName(RankLoss loss);  // "disconnected", ...

struct EpochEvent {
  enum class Kind : uint8_t {
    kJoined,   // a rank: text says which process
    kMissing,  // the join deadline passed: text names who is missing
    kRefused,  // text says whom and why; once a cause, and not more than a few a second
    kForming,  // all have joined
    kFormed,   // steps may be submitted
    kDone,     // the oldest outstanding step, on all ranks; step_us is the largest of theirs
    kLeft,     // a rank that had joined is gone before there was an epoch
    kLost,     // the epoch is over; all that is outstanding is lost with it
  };
  Kind kind;
  uint64_t epoch = 0;
  uint32_t rank = 0;                  // kJoined, kLeft, kLost: which
  RankLoss loss = RankLoss::kSilent;  // kLost
  bool was_formed = false;            // kLost: else it ended before it was formed
  std::string text;
  RankDone done;           // kDone
  int64_t forming_us = 0;  // kFormed: since the last epoch ended, or since the beginning
};

struct EpochOutgoing {
  std::vector<std::string> peers;  // connections
  RankMessage message;
};

struct EpochOutput {
  std::vector<EpochOutgoing> send;
  std::vector<EpochEvent> events;  // in order; after the messages are sent
};

class EpochLeader {
 public:
  EpochLeader(EpochPlan plan, const EpochTiming& timing, int64_t now_us);

  EpochOutput OnMessage(const std::string& peer, RankMessage message, int64_t now_us);
  // What the peer sent is no message.
  EpochOutput OnMalformed(const std::string& peer, const std::string& reason, int64_t now_us);
  // What the peer sent has another version of this wire: it is refused.
  EpochOutput OnOtherVersion(const std::string& peer, const std::string& reason, int64_t now_us);
  // Some connection broke, nobody knows whose: asks all, so that a Send to the broken one fails.
  EpochOutput OnDisconnect() const;
  // A Send failed.
  EpochOutput OnUnreachable(const std::string& peer, const std::string& reason, int64_t now_us);
  // Every EpochTickUs. Ticks that stay out for half of silence_us mean that we were stuck: silence
  // is counted afresh, because what the ranks said is still unread.
  EpochOutput OnTick(int64_t now_us);

  // The next step of the epoch, to all ranks. REQUIRES: formed(). A rank that is kRankStepsMax
  // steps behind is lost by it.
  EpochOutput Submit(const StepPlan& plan, const std::vector<SlotStart>& starts, int64_t now_us);
  // Ends the epoch on purpose: the ranks are told and may exit.
  EpochOutput Leave(const std::string& reason);

  bool formed() const { return state_ == State::kRunning; }
  uint64_t epoch() const { return epoch_; }  // the last one; 0 = none yet
  uint32_t joined_count() const;
  // Who has not joined, or is not ready yet: "rank 1 (node n1), rank 3 (node n1)".
  std::string missing() const;
  size_t outstanding_count() const { return steps_.size(); }

 private:
  enum class State : uint8_t { kJoining, kForming, kRunning };
  struct Challenger {
    std::string peer;
    int64_t since_us = 0;
  };
  struct Member {
    bool joined = false;
    std::string peer;
    RankJoin join;                // the last one, also when it is gone
    uint64_t session_formed = 0;  // of this process: used up by a Form
    int64_t heard_us = 0;
    bool ready = false;
    uint64_t done = 0;        // steps of this epoch
    int64_t progress_us = 0;  // when it last got on, or got something to do
    int64_t busy_us = 0;      // as it says
    std::optional<Challenger> challenger;
  };
  // Sent, and not done by all ranks.
  struct Step {
    uint64_t number = 0;
    int64_t timeout_us = 0;
    std::vector<uint32_t> logits_rows;  // by slice: what the result may hold
    std::vector<bool> samples;
    RankDone result;      // of the sampling rank
    int64_t step_us = 0;  // the largest so far
  };

  void OnJoin(const std::string& peer, RankJoin join, int64_t now_us, EpochOutput& out);
  // Why it cannot be a rank of this replica; "" if it can.
  std::string Misfit(const RankJoin& join) const;
  void OnSecond(Member& member, const std::string& peer, const RankJoin& join, int64_t now_us,
                EpochOutput& out);
  void Refuse(const std::string& peer, const RankJoin& join, const std::string& reason,
              int64_t now_us, EpochOutput& out);
  // `cause` is what the next try has in common with this one.
  void TellRefusal(const std::string& cause, std::string text, int64_t now_us, EpochOutput& out);
  void FormIfComplete(int64_t now_us, EpochOutput& out);
  void On(Member& member, RankPut put, int64_t now_us, EpochOutput& out);
  void On(Member& member, const RankReady& ready, int64_t now_us, EpochOutput& out);
  void On(Member& member, RankDone done, int64_t now_us, EpochOutput& out);
  void On(Member& member, const RankFault& fault, int64_t now_us, EpochOutput& out);
  void On(Member& member, const RankAlive& alive, int64_t now_us, EpochOutput& out);
  // What is wrong with a Done; "" if nothing.
  std::string FaultOf(const Member& member, const RankDone& done) const;
  void CheckProgress(int64_t now_us, EpochOutput& out);
  // The rank is lost, and with it the epoch.
  void Lose(Member& member, RankLoss loss, const std::string& text, int64_t now_us,
            EpochOutput& out);
  void Forget(Member& member);
  void Tell(EpochEvent::Kind kind, const Member& member, std::string text, EpochOutput& out) const;
  Member* Slowest();

  Member* Find(const std::string& peer);
  uint32_t RankOf(const Member& member) const;
  std::string NameOf(const Member& member) const;  // "rank 1 (node n1, host h, pid 7)"
  std::vector<std::string> Peers() const;          // of the joined

  const EpochPlan plan_;
  const EpochTiming timing_;
  State state_ = State::kJoining;
  uint64_t epoch_ = 0;
  std::vector<Member> members_;  // by rank
  int64_t since_us_ = 0;         // when the last epoch ended
  int64_t deadline_us_ = 0;      // kJoining: to name the missing; kForming: to be ready
  int64_t next_heartbeat_us_ = 0;
  int64_t last_tick_us_ = 0;
  std::map<std::string, std::string> values_;  // of the rendezvous
  size_t value_bytes_ = 0;
  std::deque<Step> steps_;  // oldest first
  uint64_t next_step_ = 1;
  int64_t refusals_since_us_ = 0;
  uint32_t refusals_told_ = 0;
  std::set<std::string> refusal_causes_;  // told already
};

}  // namespace muselet
