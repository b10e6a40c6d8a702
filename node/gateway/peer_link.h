// A gateway's connection to one scheduler or node: the socket of a ClientSession, which says what
// to send and when the peer is there.
//
// Loop thread only. Callbacks come from Tick, Send or the loop, and may not destroy the link.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/peer_session.h"
#include "comms/event_loop.h"
#include "comms/message_socket.h"

namespace muselet {

struct PeerLinkOptions {
  std::string name;  // ours, from the config
  std::string software_version;
  int64_t heartbeat_interval_us = 250'000;
  int64_t peer_timeout_us = 3'000'000;
};

class PeerLink {
 public:
  struct Callbacks {
    std::function<void()> up;  // welcomed, anew after each down
    // After an up. `on_purpose`: it said Goodbye.
    std::function<void(const std::string& why, bool on_purpose)> down;
    std::function<void(Message)> message;  // all but the handshake; only while up
  };

  static Result<std::unique_ptr<PeerLink>> Connect(EventLoop& loop, WireContext& context,
                                                   const LocalPeer& local,
                                                   const std::string& endpoint,
                                                   const PeerLinkOptions& options,
                                                   Callbacks callbacks);
  // Says Goodbye: what we hold at the peer is freed there.
  ~PeerLink();

  bool up() const { return up_; }
  // As MessageClient::Send; kUnavailable also while not up. A send that finds the connection broken
  // takes the link down.
  Status Send(Message message);
  // To be called several times a heartbeat interval.
  void Tick(int64_t now_us);

 private:
  PeerLink(EventLoop& loop, const PeerLinkOptions& options, Callbacks callbacks);
  void OnEnvelope(Envelope envelope);
  void Apply(ClientSession::Step step);

  EventLoop& loop_;
  const Callbacks callbacks_;
  ClientSession session_;
  std::unique_ptr<MessageClient> client_;
  bool up_ = false;  // as the callbacks were told
};

}  // namespace muselet
