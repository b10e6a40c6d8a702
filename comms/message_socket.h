// Envelopes over ZeroMQ: a server binds a ROUTER, a client connects a DEALER. One owner: the event
// loop they were made on; every call is made on its thread. Settings follow the known pitfalls
// (finite high-water marks, ROUTER_MANDATORY, ROUTER_HANDOVER, IMMEDIATE, MAXMSGSIZE, heartbeats,
// LINGER), so a full or vanished peer is a Status, never a silent drop.
//
// Works alike over inproc://, ipc:// and tcp://, a client may connect before its server is bound;
// but an inproc:// server that goes away is not found again (both live in one process). Handlers
// may destroy the socket they are called for. The loop and the context outlive the sockets.
// cppzmq's exceptions stop here.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/messages.h"
#include "base/status.h"
#include "comms/event_loop.h"
#include "comms/wire_keys.h"

namespace zmq {
class context_t;
}

namespace muselet {

class KeyGuard;

// The ZeroMQ context of the process; owns its I/O thread. Outlives all sockets made from it. Roles
// in one process share it, which is what makes inproc:// work.
class WireContext {
 public:
  WireContext();
  ~WireContext();
  zmq::context_t& zmq() { return *context_; }

  // From now on tcp:// wires off loopback are encrypted, and sockets that are bound there admit
  // known keys only. Endpoints that were bound so carry the own public key, tcp://HOST:PORT#KEY;
  // clients take it from there, or else expect the own one. Once, before sockets are made.
  // kUnavailable if libzmq cannot do it.
  Status Secure(const WireSecurity& security);
  // nullptr: wires are plain.
  const WireKeyPair* keys() const { return guard_ == nullptr ? nullptr : &keys_; }
  // Connections that were refused for their keys so far. Any thread.
  uint64_t refused() const;

 private:
  std::unique_ptr<zmq::context_t> context_;
  WireKeyPair keys_;
  std::unique_ptr<KeyGuard> guard_;
};

// Who is sending: stamped on every envelope.
struct LocalPeer {
  std::string name;
  uint64_t instance = 0;  // drawn once a process, RequestId::Random().low
};

struct WireLimits {
  uint32_t message_bytes_max = 64U << 20;
  uint32_t queue_messages_max = 10'000;  // per peer and direction
};

class MessageServer {
 public:
  // Called on the loop thread for each well-formed envelope. `peer` is the connection's identity,
  // to be given to Send.
  using Handler = std::function<void(const std::string& peer, Envelope envelope)>;

  // kUnavailable naming the endpoint if it cannot be bound (in use, no permission, no such
  // address).
  static Result<std::unique_ptr<MessageServer>> Bind(EventLoop& loop, WireContext& context,
                                                     const LocalPeer& local,
                                                     const std::string& endpoint, Handler handler,
                                                     const WireLimits& limits = {});
  virtual ~MessageServer() = default;
  // Where others connect: the endpoint with the port that was really bound.
  virtual const std::string& endpoint() const = 0;
  // kUnavailable: the peer is not connected; kResourceExhausted: its queue is full. Nothing was
  // sent then.
  // kInvalidArgument: the message is larger than the limit.
  virtual Status Send(const std::string& peer, Message message) = 0;
  // Called on the loop thread, not from within Send, when some connection broke (never for
  // inproc://). ZeroMQ does not say whose: a Send to each peer that matters tells.
  virtual void OnDisconnect(std::function<void()> callback) = 0;
};

class MessageClient {
 public:
  using Handler = std::function<void(Envelope envelope)>;

  // Connects in the background, for ever; never fails for a peer that is away. kInvalidArgument for
  // a bad endpoint.
  static Result<std::unique_ptr<MessageClient>> Connect(EventLoop& loop, WireContext& context,
                                                        const LocalPeer& local,
                                                        const std::string& endpoint,
                                                        Handler handler,
                                                        const WireLimits& limits = {});
  virtual ~MessageClient() = default;
  virtual const std::string& endpoint() const = 0;
  // kUnavailable: not connected; kResourceExhausted: the queue is full. Nothing was sent then.
  // kInvalidArgument: the message is larger than the limit.
  virtual Status Send(Message message) = 0;
  // Called on the loop thread when the connection broke (never for inproc://): what was under way
  // may be lost, even if the next connection stands a moment later.
  virtual void OnDisconnect(std::function<void()> callback) = 0;
};

}  // namespace muselet
