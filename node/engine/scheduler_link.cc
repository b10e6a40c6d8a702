#include "node/engine/scheduler_link.h"

#include <utility>

#include "base/log.h"

namespace muselet {

Result<std::unique_ptr<SchedulerLink>> SchedulerLink::Connect(EventLoop& loop, WireContext& context,
                                                              const LocalPeer& local,
                                                              const std::string& endpoint,
                                                              Hello hello) {
  std::unique_ptr<SchedulerLink> link(new SchedulerLink(std::move(hello)));
  SchedulerLink* raw = link.get();
  ASSIGN_OR_RETURN(link->client_,
                   MessageClient::Connect(loop, context, local, endpoint,
                                          [raw](Envelope envelope) { raw->OnEnvelope(envelope); }));
  link->SayHello();
  return link;
}

void SchedulerLink::SayHello() {
  // Not connected yet: the next report interval says it again.
  (void)client_->Send(hello_);
}

void SchedulerLink::OnEnvelope(const Envelope& envelope) {
  if (const auto* welcome = std::get_if<Welcome>(&envelope.body)) {
    if (!welcomed_ || instance_ != envelope.instance) {
      LogInfo("announced to scheduler",
              {{"scheduler", welcome->name}, {"endpoint", client_->endpoint()}});
    }
    welcomed_ = true;
    instance_ = envelope.instance;
  } else if (std::holds_alternative<Unknown>(envelope.body)) {
    welcomed_ = false;
    SayHello();
  }
}

void SchedulerLink::SendReport(const Report& report) {
  if (!welcomed_) {
    SayHello();
    return;
  }
  if (client_->Send(report).code() == StatusCode::kUnavailable) welcomed_ = false;
}

void SchedulerLink::SayGoodbye(const std::string& reason) {
  if (welcomed_) (void)client_->Send(Goodbye{reason});
  welcomed_ = false;
}

}  // namespace muselet
