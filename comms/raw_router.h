// Plain frames over a ROUTER socket, for peers that do not speak envelopes: front ends on a
// gateway's RPC port, ranks (comms/raw_dealer) at their leader's. One owner: the event loop it was
// made on; every call is made on its thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "comms/event_loop.h"
#include "comms/message_socket.h"

namespace muselet {

// Whom to answer, and how it asked: REQ sockets put an empty frame before each message and want it
// back.
struct RawPeer {
  std::string id;
  bool delimited = false;
};

class RawRouter {
 public:
  // `body` is the last frame of a message of one frame, or of an empty one and one more; other
  // messages are dropped.
  using Handler = std::function<void(const RawPeer& peer, std::string body)>;

  // Faults as MessageServer::Bind. `audience`: who may connect where wires are secured.
  static Result<std::unique_ptr<RawRouter>> Bind(EventLoop& loop, WireContext& context,
                                                 const std::string& endpoint, Handler handler,
                                                 const WireLimits& limits = {},
                                                 WireAudience audience = WireAudience::kMembers);
  virtual ~RawRouter() = default;
  // Where others connect: the endpoint with the port that was really bound.
  virtual const std::string& endpoint() const = 0;
  // kUnavailable: the peer is not connected; kResourceExhausted: its queue is full. Nothing was
  // sent then.
  virtual Status Send(const RawPeer& peer, const std::string& body) = 0;
  // As MessageServer::OnDisconnect.
  virtual void OnDisconnect(std::function<void()> callback) = 0;
};

}  // namespace muselet
