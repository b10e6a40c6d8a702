// What a replica says to gateways: who owns which sequence, what is let in, whose silence frees
// what. A protocol core: messages, updates and ticks in, messages and step commands out; no socket,
// clock or thread.
//
// Rules:
//   - A gateway is (name, instance); its Hello makes it known, a new instance of the name ends the
//     old one. It is silent for peer_timeout_us: its sequences are cancelled and it is forgotten.
//     Whoever is not known is answered Unknown.
//   - A Submit that cannot be taken is always answered: TokenUpdate with kError and a code that
//   says
//     whether to try elsewhere (kUnavailable: other epoch, other replica, draining, not known
//     here).
//   - The same attempt twice is one; an attempt that ended or was cancelled here does not start
//   again
//     (the last kEndedRemembered are remembered); a newer attempt replaces an older.
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
  size_t sequences_max = 1088;  // held at once, waiting ones included; more are refused
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
  // `message`, from an earlier output, could not be sent: its sequences have a gap now and end
  // here; the gateway takes them elsewhere.
  NodeAdmissionOutput OnSendFailed(const Message& message);
  // Every TickIntervalUs (base/peer_session). Ticks that stay out for half of peer_timeout_us mean
  // that we were stuck: silence counts afresh, because what the gateways said is still unread.
  NodeAdmissionOutput OnTick(int64_t now_us);
  // Tells the gateways that we leave on purpose.
  NodeAdmissionOutput Farewell() const;

  void StartDraining() { draining_ = true; }
  bool draining() const { return draining_; }
  std::vector<SequenceId> ActiveSequences() const;
  size_t sequence_count() const { return owners_.size(); }
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
    uint32_t attempt = 0;
  };
  void OnSubmit(const std::string& gateway, Submit submit, NodeAdmissionOutput& output);
  void OnCancel(const Cancel& cancel, NodeAdmissionOutput& output);
  Status CheckSubmit(const Submit& submit) const;
  void Forget(const SequenceId& sequence, uint32_t attempt);
  void CancelAllOf(const std::string& gateway, NodeAdmissionOutput& output);

  const NodeAdmissionOptions options_;
  bool draining_ = false;
  int64_t last_tick_us_ = 0;
  std::map<std::string, Gateway> gateways_;  // by name
  std::unordered_map<SequenceId, Owner> owners_;
  std::unordered_map<SequenceId, uint32_t> ended_;  // newest attempt that ended here
  std::deque<SequenceId> ended_order_;              // oldest first
  uint64_t dropped_count_ = 0;
};

}  // namespace muselet
