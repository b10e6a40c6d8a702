// A replica's connection to one scheduler: says Hello until it is welcomed, then carries reports;
// starts over when the scheduler restarts or the connection breaks. Loop thread only.
#pragma once

#include <memory>
#include <string>

#include "comms/event_loop.h"
#include "comms/message_socket.h"

namespace muselet {

class SchedulerLink {
 public:
  // kInvalidArgument for a bad endpoint. `hello` is what announces us, every time.
  static Result<std::unique_ptr<SchedulerLink>> Connect(EventLoop& loop, WireContext& context,
                                                        const LocalPeer& local,
                                                        const std::string& endpoint, Hello hello);

  bool welcomed() const { return welcomed_; }
  // The report if we are welcome there, else another Hello. A report that does not get through is
  // followed by a newer one: nothing is kept.
  void SendReport(const Report& report);
  void SayGoodbye(const std::string& reason);

 private:
  explicit SchedulerLink(Hello hello) : hello_(std::move(hello)) {}
  void OnEnvelope(const Envelope& envelope);
  void SayHello();

  const Hello hello_;
  std::unique_ptr<MessageClient> client_;
  bool welcomed_ = false;
  uint64_t instance_ = 0;  // of the scheduler that welcomed us
};

}  // namespace muselet
