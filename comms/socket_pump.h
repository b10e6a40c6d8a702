// One ZeroMQ socket on one event loop: the settings, the edge-triggered joint between ZMQ_FD and
// asio, and the monitor that says when connections come and go. Private to comms/message_socket.
//
// ZMQ_FD signals edges only: after every receive and send the socket's events are read again, and
// what is left is drained in a later turn, so that one noisy peer cannot hold up the loop.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "base/status.h"
#include "comms/event_loop.h"
#include "comms/message_socket.h"

namespace muselet {

// Held by shared_ptr because asio's callbacks refer to it; after Close nothing is called any more.
// Close also from within a handler. Loop thread only; the loop and the context outlive it. May
// throw zmq::error_t from its constructor only.
class SocketPump : public std::enable_shared_from_this<SocketPump> {
 public:
  using FrameHandler = std::function<void(std::vector<std::string>& frames)>;

  SocketPump(EventLoop& loop, WireContext& context, zmq::socket_type type,
             const WireLimits& limits);
  ~SocketPump();

  // The endpoint really bound, with the own public key if it admits known keys only: the context
  // is secured and the endpoint is off loopback.
  Result<std::string> Bind(const std::string& endpoint,
                           WireAudience audience = WireAudience::kMembers);
  // `endpoint` may carry the key of the process that listens there; off loopback, where the context
  // is secured, it is the own one otherwise.
  Status Connect(const std::string& endpoint, const std::string& identity);
  // Called when a connection is ready for use (true) or gone (false); not for inproc://. Replaces
  // the callback given before.
  void OnConnection(std::function<void(bool connected)> callback);
  // Begins to call `handler` for each message.
  void Start(FrameHandler handler);
  void Close();

  // 0 or errno: EAGAIN (full, or no connection), EHOSTUNREACH (no such peer), others.
  int Send(const std::string& bytes);
  // `delimited`: an empty frame goes before the bytes, as REQ sockets want it.
  int SendTo(const std::string& peer, const std::string& bytes, bool delimited = false);

 private:
  using Descriptor = boost::asio::posix::stream_descriptor;

  void OpenMonitor();
  void Wait(Descriptor& descriptor, void (SocketPump::*drain)());
  void Drain();
  void DrainLater();
  void DrainMonitor();
  Status SecureServer(WireAudience audience);
  Status SecureClient(const std::string& server_key);
  void NoteHandshakeFault(int event, int detail);
  void NoticeInput();
  // The frames of the next message in frames_, or false.
  bool Receive();
  int SendFrame(const void* data, size_t size, int flags);

  EventLoop& loop_;
  WireContext& context_;
  std::string endpoint_;  // for the log
  zmq::socket_t socket_;
  std::optional<zmq::socket_t> monitor_;
  std::optional<Descriptor> descriptor_;
  std::optional<Descriptor> monitor_descriptor_;
  FrameHandler handler_;
  std::function<void(bool)> on_connection_;
  std::vector<std::string> frames_;
  uint64_t handshake_faults_ = 0;
  bool drain_posted_ = false;
  bool waiting_ = false;
  bool closed_ = false;
};

}  // namespace muselet
