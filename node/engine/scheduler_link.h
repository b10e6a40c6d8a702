// A replica's connection to one scheduler: the socket of a ClientSession whose sign of life is the
// reports. `drain_asked` is called when the scheduler hands on an operator's Drain. Loop thread
// only.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/peer_session.h"
#include "comms/event_loop.h"
#include "comms/message_socket.h"

namespace muselet {

class SchedulerLink {
 public:
  // kInvalidArgument for a bad endpoint. `hello` is what announces us, every time. The heartbeat
  // interval of `timing` is the one at which reports are sent.
  static Result<std::unique_ptr<SchedulerLink>> Connect(EventLoop& loop, WireContext& context,
                                                        const LocalPeer& local,
                                                        const std::string& endpoint, Hello hello,
                                                        const PeerTiming& timing,
                                                        std::function<void()> drain_asked = {});

  bool welcomed() const { return session_.joined(); }
  // How often it said Welcome after it had not known us: it knows nothing of us then.
  uint64_t joined_count() const { return joined_count_; }
  // Every TickIntervalUs: notices that the scheduler went away, and says Hello again.
  void Tick();
  // Sent if we are welcome there. One that does not get through is followed by a newer one: nothing
  // is kept.
  void SendReport(const Report& report);
  // False: not sent, to be tried again.
  bool SendCacheEvents(const CacheEvents& events);
  void SayGoodbye(const std::string& reason);

 private:
  SchedulerLink(EventLoop& loop, Hello hello, const PeerTiming& timing);
  Status Send(Message message);
  void Apply(ClientSession::Step step);

  EventLoop& loop_;
  ClientSession session_;
  std::function<void()> drain_asked_;
  uint64_t joined_count_ = 0;
  std::unique_ptr<MessageClient> client_;
};

}  // namespace muselet
