// What a replica says to gateways: who owns which sequence, what is let in, whose silence frees
// what. A protocol core: messages, updates and ticks in, messages and step commands out; no socket,
// clock or thread.
//
// Rules:
//   - A gateway is (name, instance); its Hello makes it known, a new instance of the name ends the
//     old one. It is lost when it is silent for peer_timeout_us, its connection broke or it was
//     replaced; then it is forgotten. Whoever is not known is answered Unknown.
//   - What a lost gateway leaves behind goes on as an orphan for orphan_timeout_us, then it is
//     cancelled; so does a sequence whose tokens could not be sent. A Submit of an orphan, by any
//     gateway, adopts it: it goes on as it stands, and what was generated beyond the tokens that
//     the Submit names is said again (Batcher::Admit). A Goodbye leaves no orphans.
//   - A sequence that computes for a gateway which is there is not given to another one.
//   - A Submit that cannot be taken is always answered: TokenUpdate with kError and a code that
//   says
//     whether to try elsewhere (kUnavailable: other epoch, other replica, draining, not known
//     here).
//   - The same attempt twice is one; an attempt that ended or was cancelled here does not start
//     again for the same gateway (the last kEndedRemembered are remembered); a newer attempt takes
//     over from an older.
//   - Each gateway numbers the attempts of a request by itself. The step loop sees runs instead,
//     which grow with each Submit of a sequence that is passed on: so updates of an earlier owner
//     that were under way never pass for updates of the next.
//   - Updates for sequences without an owner are counted and dropped.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/messages.h"
#include "node/engine/step_loop.h"

namespace muselet {

struct NodeAdmissionOptions {
  std::string node;     // our name, for Welcome
  std::string replica;  // what Submit must name
  uint64_t epoch = 0;
  int64_t peer_timeout_us = 3'000'000;
  size_t sequences_max = 1088;             // held at once, waiting ones included; more are refused
  int64_t orphan_timeout_us = 10'000'000;  // 0 = what a lost gateway had is cancelled at once
};

struct NodeAdmissionOutput {
  std::vector<std::pair<std::string, Message>> messages;  // connection, message
  std::vector<StepCommand> commands;                      // for the step loop, in this order
};

class NodeAdmission {
 public:
  static constexpr size_t kEndedRemembered = 4096;

  explicit NodeAdmission(NodeAdmissionOptions options);

  // `connection` is where answers to the sender go.
  NodeAdmissionOutput OnMessage(const std::string& connection, Envelope envelope, int64_t now_us);
  // What the step loop gave: at most one Tokens a gateway.
  NodeAdmissionOutput OnUpdates(std::vector<TokenUpdate> updates, int64_t now_us);
  // `message`, from an earlier output, could not be sent: its sequences have a gap now and are
  // orphans. A gateway that is still there is told with the next tick, and tries again.
  NodeAdmissionOutput OnSendFailed(const Message& message);
  // Some connection broke, nobody knows whose: asks all, so that a Send to the broken one fails.
  NodeAdmissionOutput OnDisconnect() const;
  // Nothing can be sent to the connection any more: its gateway is lost.
  NodeAdmissionOutput OnUnreachable(const std::string& connection, int64_t now_us);
  // Every TickIntervalUs (base/peer_session). Ticks that stay out for half of peer_timeout_us mean
  // that we were stuck: silence counts afresh, because what the gateways said is still unread.
  NodeAdmissionOutput OnTick(int64_t now_us);
  // Tells the gateways that we leave on purpose.
  NodeAdmissionOutput Farewell() const;

  void StartDraining() { draining_ = true; }
  bool draining() const { return draining_; }
  std::vector<SequenceId> ActiveSequences() const;
  size_t sequence_count() const { return owners_.size(); }
  size_t orphan_count() const { return orphan_count_; }
  size_t gateway_count() const { return gateways_.size(); }
  uint64_t dropped_count() const { return dropped_count_; }

 private:
  struct Gateway {
    uint64_t instance = 0;
    std::string connection;
    int64_t heard_us = 0;
  };
  struct Owner {
    std::string gateway;
    uint64_t instance = 0;
    uint32_t attempt = 0;  // as the gateway counts
    uint32_t run = 0;      // as the step loop knows it
    bool orphan = false;
    bool gateway_unaware = false;  // of an orphan: its gateway may be there, and does not know
    int64_t orphan_since_us = 0;
  };
  struct Ended {
    std::string gateway;
    uint64_t instance = 0;
    uint32_t attempt = 0;  // the newest of that gateway
    uint32_t run = 0;
  };
  using Owners = std::unordered_map<SequenceId, Owner>;

  void OnSubmit(const std::string& gateway, Submit submit, NodeAdmissionOutput& output);
  void OnCancel(const std::string& gateway, const Cancel& cancel, NodeAdmissionOutput& output);
  // `held`: it is here already.
  Status CheckSubmit(const Submit& submit, bool held) const;
  // The attempt of this gateway does not start again.
  void Remember(const SequenceId& sequence, const Ended& end);
  Owners::iterator Drop(Owners::iterator owner);
  void MakeOrphan(Owner& owner);
  // What the gateway holds is cancelled, or orphaned.
  void CancelAllOf(const std::string& gateway, NodeAdmissionOutput& output);
  void Lose(const std::string& gateway, NodeAdmissionOutput& output);
  void ExpireOrphans(NodeAdmissionOutput& output);
  void TellUnaware(NodeAdmissionOutput& output);

  const NodeAdmissionOptions options_;
  bool draining_ = false;
  int64_t last_tick_us_ = 0;
  int64_t now_us_ = 0;  // of the last call that had a time
  size_t orphan_count_ = 0;
  std::map<std::string, Gateway> gateways_;  // by name
  Owners owners_;
  std::unordered_map<SequenceId, Ended> ended_;
  std::deque<SequenceId> ended_order_;  // oldest first
  std::vector<SequenceId> untold_;      // they ended, and their gateways do not know
  uint64_t dropped_count_ = 0;
};

}  // namespace muselet
