// Who is there: the Hello, Welcome, Heartbeat, Unknown and Goodbye of base/messages.h, once for all
// roles. ClientSession is the side that connects (a gateway towards a scheduler or a node, a node
// towards a scheduler); PeerTable is the side that binds. Sans-I/O: messages and ticks in, messages
// and events out; one owner, no locks. The owner sends what it is told to, in order, and may ignore
// the fault of a Send: everything is repeated.
//
// Both sides call OnEnvelope for every envelope, before they look at the body, and OnTick every
// TickIntervalUs. Ticks that stay out for half the timeout mean that we were
// stuck ourselves: silence is counted afresh then, because what the peers said is still unread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/messages.h"

namespace muselet {

struct PeerTiming {
  int64_t heartbeat_interval_us = 250'000;
  int64_t timeout_us = 3'000'000;  // silence after which a peer is lost
};

// How often the owner calls OnTick at the latest, so that it never seems stuck by its own interval.
inline int64_t TickIntervalUs(const PeerTiming& timing) {
  return std::clamp<int64_t>(timing.timeout_us / 8, 1,
                             std::max<int64_t>(timing.heartbeat_interval_us, 1));
}

// Whether the owner was stuck between two ticks.
inline bool WasStuck(int64_t last_tick_us, int64_t now_us, const PeerTiming& timing) {
  return now_us - last_tick_us > timing.timeout_us / 2;
}

class ClientSession {
 public:
  // kJoined and kLost take turns; kJoined is the first.
  struct Event {
    enum class Kind {
      kJoined,  // it knows us now: send it what it must know (reports, open requests)
      kLost,    // all that it held for us is gone, or may be; Hello goes on being repeated
    };
    Kind kind;
    std::string reason;       // of kLost: "it is silent"
    bool on_purpose = false;  // of kLost: it said Goodbye
  };
  struct Step {
    std::vector<Message> send;
    std::vector<Event> events;  // in order
    // The sender is the process that knows us: the owner handles the body (of other kinds than
    // Welcome and Heartbeat). What strangers and replaced processes say must not be listened to.
    bool known = false;
  };

  // `sends_heartbeats` false: the owner's own regular messages (a node's reports) are its sign of
  // life. A peer that has had nothing to say for a quarter of the timeout is asked by a Hello,
  // which is always answered.
  ClientSession(Hello hello, const PeerTiming& timing, bool sends_heartbeats = true);

  Step OnEnvelope(const Envelope& envelope, int64_t now_us);
  Step OnTick(int64_t now_us);
  // The connection broke, or a Send said kUnavailable: the next tick says Hello.
  Step OnUnreachable();

  bool joined() const { return state_ == State::kJoined; }
  // Of the last process that said Welcome; empty before.
  const std::string& peer_name() const { return peer_name_; }

 private:
  enum class State { kAway, kJoined };

  void Lose(std::string reason, Step& step, bool on_purpose = false);

  const Hello hello_;
  const PeerTiming timing_;
  const bool sends_heartbeats_;
  State state_ = State::kAway;
  std::string peer_name_;
  uint64_t instance_ = 0;           // of the last process that said Welcome; 0 before
  uint64_t replaced_instance_ = 0;  // its late messages are ignored
  int64_t replaced_us_ = 0;
  int64_t last_heard_us_ = 0;
  int64_t last_tick_us_ = 0;
  std::optional<int64_t> next_send_us_;  // Hello or Heartbeat; none: at once
  bool hello_pending_ = true;
};

struct Outgoing {
  std::string peer;  // the connection's identity
  Message message;
};

class PeerTable {
 public:
  struct Peer {
    std::string id;  // of its connection
    Hello hello;     // the last one
    uint64_t instance = 0;
    int64_t last_heard_us = 0;
  };
  struct Event {
    enum class Kind {
      kJoined,   // a new process; whatever an older one of this role and name held is gone (its
                 // kLost came before)
      kUpdated,  // a known process said Hello again: it asks for a snapshot, or has other replicas
      kLost,
    };
    Kind kind;
    Peer peer;                // a copy: after kLost it is in the table no more
    std::string reason;       // of kLost
    bool on_purpose = false;  // it said Goodbye
  };
  struct Step {
    std::vector<Outgoing> send;
    std::vector<Event> events;
    // The sender is known: the owner handles the body (of other kinds than Hello, Goodbye and
    // Heartbeat). Strangers are told Unknown and must not be listened to.
    bool known = false;
  };

  // `name`: ours, for Welcome. Peers beyond `peers_max` are told Goodbye.
  PeerTable(std::string name, const PeerTiming& timing, size_t peers_max = 4096);

  Step OnEnvelope(const std::string& peer, const Envelope& envelope, int64_t now_us);
  // Heartbeats to all, and the loss of the silent.
  Step OnTick(int64_t now_us);
  // A Send to it said kUnavailable: its connection is gone.
  Step OnUnreachable(const std::string& peer, int64_t now_us);

  const Peer* Find(const std::string& peer) const;
  // The known peer of this role and name, or null.
  const Peer* FindName(Role role, const std::string& name) const;
  const std::map<std::string, Peer>& peers() const { return peers_; }

 private:
  using NameKey = std::pair<Role, std::string>;

  void OnHello(const std::string& peer, const Hello& hello, uint64_t instance, int64_t now_us,
               Step& step);
  void Lose(const std::string& peer, std::string reason, bool on_purpose, Step& step);

  std::string name_;
  PeerTiming timing_;
  size_t peers_max_;
  std::map<std::string, Peer> peers_;       // by connection
  std::map<NameKey, std::string> by_name_;  // role and name -> connection
  // The process that the present one of this role and name replaced: two live processes of one name
  // must not throw each other out in turn. Forgotten when the present one is lost.
  std::map<NameKey, uint64_t> replaced_;
  std::optional<int64_t> next_heartbeat_us_;
  int64_t last_tick_us_ = 0;
};

}  // namespace muselet
