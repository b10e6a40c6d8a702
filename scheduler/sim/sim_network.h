// Envelopes between actors, with the manners of comms/message_socket: servers are found by their
// endpoint and answer on the connection's identity, clients connect to an endpoint; a Send to who
// is known to be gone is kUnavailable, to a full queue kResourceExhausted, and a connection that
// breaks is told. Everything else is the world's affair. Single-threaded.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/messages.h"
#include "base/status.h"
#include "scheduler/sim/sim_world.h"

namespace muselet {

// What a process runs. Made when it starts and destroyed when it crashes.
class SimActor {
 public:
  virtual ~SimActor() = default;
  virtual void Start() = 0;
  // `peer`: where answers go.
  virtual void OnMessage(const std::string& peer, Envelope envelope) = 0;
  // The connection to that process broke, if there was one.
  virtual void OnDisconnect(SimProcess peer) = 0;
};

// Who an actor is: its name on envelopes, and what it was drawn at its start.
struct SimSelf {
  SimProcess process = 0;
  uint64_t instance = 0;
};

class SimNetwork {
 public:
  using Maker = std::function<std::unique_ptr<SimActor>(const SimSelf& self)>;

  // `full`: how likely a queue is to be full when something is sent.
  explicit SimNetwork(SimWorld& world, double full = 0) : world_(world), full_(full) {}

  SimWorld& world() { return world_; }
  // Told of each message that is sent and that arrives, and of starts and crashes: "12 ms s0 -> g0
  // ticket". For whoever looks for a fault; empty: nobody.
  using Trace = std::function<void(const std::string& line)>;
  void SetTrace(Trace trace) { trace_ = std::move(trace); }
  void SetFull(double full) { full_ = full; }

  // A process that `endpoint` leads to. It is up, but runs nothing before Start.
  SimProcess Add(const std::string& endpoint, Maker maker);
  void Start(SimProcess process);
  // `silent`: its machine is gone, and nobody is told before it is there again.
  void Crash(SimProcess process, bool silent);
  // Null while it is down.
  SimActor* actor(SimProcess process) const { return hosts_[process].actor.get(); }
  size_t size() const { return hosts_.size(); }

  // From a client to the process at `endpoint`.
  Status Connect(const SimSelf& from, const std::string& sender, const std::string& endpoint,
                 Message message);
  // From a server, on a connection that it got a message from.
  Status Answer(const SimSelf& from, const std::string& sender, const std::string& peer,
                Message message);
  // No process has this number.
  static constexpr SimProcess kNowhere = ~SimProcess{0};
  SimProcess Find(const std::string& endpoint) const;  // kNowhere if nobody is there
  // Whose connection it is or was.
  SimProcess ProcessOf(const std::string& peer) const;

 private:
  struct Host {
    std::string endpoint;
    Maker maker;
    std::unique_ptr<SimActor> actor;
    std::shared_ptr<const std::string> identity;  // as others see its connections
    bool gone_unnoticed = false;
    uint64_t sent = 0;
  };
  struct Connection {
    SimProcess process = 0;
    uint32_t incarnation = 0;
  };
  Status Send(const SimSelf& from, const std::string& sender, SimProcess to, Message message);
  void TellDisconnected(SimProcess gone);
  void Note(SimProcess process, const std::string& what) const;
  void NoteMessage(const char* verb, SimProcess from, SimProcess to, const Message& message) const;

  SimWorld& world_;
  double full_;
  Trace trace_;
  std::vector<Host> hosts_;
  std::unordered_map<std::string, SimProcess> endpoints_;
  std::unordered_map<std::string, Connection> connections_;  // by identity
};

}  // namespace muselet
