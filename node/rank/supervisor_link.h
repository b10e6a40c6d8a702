// The socket between a rank's process and its supervisor: words, one a packet.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "comms/event_loop.h"

namespace muselet {

// The descriptors that a child is born with.
inline constexpr int kSupervisorDescriptor = 3;
inline constexpr int kConfigDescriptor = 4;

// A packet's first byte.
inline constexpr char kWordAlive = 'A';   // the loop turns
inline constexpr char kWordJoined = 'J';  // works in an epoch
inline constexpr char kWordParted = 'P';  // its epoch is over
inline constexpr char kWordReason = 'W';  // the rest says why it goes
inline constexpr size_t kWordBytesMax = 1024;

// The child's end.
class SupervisorLink {
 public:
  // Takes the descriptor over. From now on the supervisor is told that the loop turns, every
  // `interval_us`. `on_gone` is called on the loop thread when the supervisor is no more.
  SupervisorLink(EventLoop& loop, int descriptor, int64_t interval_us,
                 std::function<void()> on_gone);
  ~SupervisorLink();
  SupervisorLink(const SupervisorLink&) = delete;
  SupervisorLink& operator=(const SupervisorLink&) = delete;

  // Any thread; what cannot be sent at once is dropped.
  void Say(char word, std::string_view text = {});

 private:
  struct State;
  std::shared_ptr<State> state_;
  PeriodicTimer timer_;
};

}  // namespace muselet
