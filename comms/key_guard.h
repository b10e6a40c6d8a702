// Says who may connect to the process's secured sockets: libzmq asks it about the key of every new
// connection (ZAP, RFC 27, at inproc://zeromq.zap.01 of the context). It answers on a thread of its
// own, so that a busy loop cannot hold up handshakes. Keys that are not known are refused, counted,
// and logged, at most one line in ten seconds.
#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "comms/wire_keys.h"

namespace muselet {

class KeyGuard {
 public:
  // Throws zmq::error_t if the context has a guard already. The context outlives it.
  KeyGuard(zmq::context_t& context, const WireSecurity& security);
  // REQUIRES: the context was shut down.
  ~KeyGuard();
  KeyGuard(const KeyGuard&) = delete;
  KeyGuard& operator=(const KeyGuard&) = delete;

  // Makes a socket, before it is bound, a server that asks the guard of its context about every new
  // connection; where there is no guard to answer, it refuses all of them. Throws zmq::error_t.
  static void Protect(zmq::socket_t& socket, const WireKeyPair& own, WireAudience audience);
  // Connections with keys that are not known so far. Any thread.
  uint64_t refused() const { return refused_; }

 private:
  using Frames = std::vector<std::string>;

  // The name by which sockets with this audience ask.
  static const char* Domain(WireAudience audience);
  void Answer();
  bool Receive(Frames& frames);
  void Reply(const std::string& request, bool admitted);
  bool Admits(const Frames& frames) const;
  void NoteRefusal(const Frames& frames);

  std::set<std::string> members_;     // as 32 bytes
  std::set<std::string> front_ends_;  // with the members
  std::atomic<uint64_t> refused_ = 0;
  int64_t logged_at_us_ = 0;
  zmq::socket_t socket_;
  std::thread thread_;
};

}  // namespace muselet
