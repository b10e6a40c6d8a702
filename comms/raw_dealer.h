// Plain frames over a DEALER socket, for a peer of a RawRouter that is no front end: a rank towards
// its leader. One owner: the event loop it was made on; every call is made on its thread, or while
// the loop does not run.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "comms/event_loop.h"
#include "comms/message_socket.h"

namespace muselet {

class RawDealer {
 public:
  // One frame a message; messages of more frames are dropped.
  using Handler = std::function<void(std::string body)>;

  // Connects in the background, for ever; never fails for a peer that is away. `identity` must be
  // another one for each dealer of each process (RawDealer::DrawIdentity). kInvalidArgument for a
  // bad endpoint or identity.
  static Result<std::unique_ptr<RawDealer>> Connect(EventLoop& loop, WireContext& context,
                                                    const std::string& endpoint,
                                                    const std::string& identity, Handler handler,
                                                    const WireLimits& limits = {});
  // `name` and 128 random bits.
  static std::string DrawIdentity(const std::string& name);

  virtual ~RawDealer() = default;
  // kUnavailable: not connected; kResourceExhausted: the queue is full. Nothing was sent then.
  // kInvalidArgument: the message is larger than the limit.
  virtual Status Send(const std::string& body) = 0;
  // Called on the loop thread when the connection stands (true) and when it broke (false); never
  // for inproc://. What was under way when it broke is lost.
  virtual void OnConnection(std::function<void(bool connected)> callback) = 0;
};

}  // namespace muselet
