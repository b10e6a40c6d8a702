// A gateway's connection to one scheduler or node: says Hello until it is welcomed, heartbeats,
// notices silence, a broken connection and a restarted peer, and starts over for ever.
//
// Loop thread only. Callbacks come from Tick, Send or the loop, and may not destroy the link.
#pragma once

#include <functional>
#include <memory>
#include <string>

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
    std::function<void()> up;                          // welcomed, anew after each down
    std::function<void(const std::string& why)> down;  // after an up
    std::function<void(Message)> message;              // all but the handshake; only while up
  };

  static Result<std::unique_ptr<PeerLink>> Connect(EventLoop& loop, WireContext& context,
                                                   const LocalPeer& local,
                                                   const std::string& endpoint,
                                                   const PeerLinkOptions& options,
                                                   Callbacks callbacks);
  // Says Goodbye: what we hold at the peer is freed there.
  ~PeerLink();

  bool up() const { return up_; }
  // The name that the peer gave in its Welcome; "" before.
  const std::string& peer_name() const { return peer_name_; }
  // As MessageClient::Send; kUnavailable also while not up. A send that finds the connection broken
  // takes the link down.
  Status Send(Message message);
  // To be called several times a heartbeat interval.
  void Tick(int64_t now_us);

 private:
  PeerLink(EventLoop& loop, const PeerLinkOptions& options, Callbacks callbacks)
      : loop_(loop), options_(options), callbacks_(std::move(callbacks)) {}
  void OnEnvelope(Envelope envelope);
  void SayHello(int64_t now_us);
  void GoDown(const std::string& why);

  EventLoop& loop_;
  const PeerLinkOptions options_;
  const Callbacks callbacks_;
  std::unique_ptr<MessageClient> client_;
  bool up_ = false;
  std::string peer_name_;
  uint64_t peer_instance_ = 0;  // 0 = not known yet
  int64_t heard_us_ = 0;
  int64_t ticked_us_ = 0;
  int64_t next_hello_us_ = 0;
  int64_t next_heartbeat_us_ = 0;
};

}  // namespace muselet
