#include "node/engine/scheduler_link.h"

#include <utility>

#include "base/log.h"

namespace muselet {

SchedulerLink::SchedulerLink(EventLoop& loop, Hello hello, const PeerTiming& timing)
    : loop_(loop), session_(std::move(hello), timing, /*sends_heartbeats=*/false) {}

Result<std::unique_ptr<SchedulerLink>> SchedulerLink::Connect(EventLoop& loop, WireContext& context,
                                                              const LocalPeer& local,
                                                              const std::string& endpoint,
                                                              Hello hello, const PeerTiming& timing,
                                                              std::function<void()> drain_asked) {
  std::unique_ptr<SchedulerLink> link(new SchedulerLink(loop, std::move(hello), timing));
  link->drain_asked_ = std::move(drain_asked);
  SchedulerLink* raw = link.get();
  ASSIGN_OR_RETURN(link->client_,
                   MessageClient::Connect(loop, context, local, endpoint, [raw](Envelope envelope) {
                     ClientSession::Step step =
                         raw->session_.OnEnvelope(envelope, raw->loop_.NowUs());
                     const bool known = step.known;
                     raw->Apply(std::move(step));
                     const bool drain = std::holds_alternative<Drain>(envelope.body);
                     if (known && drain && raw->drain_asked_) raw->drain_asked_();
                   }));
  link->client_->OnDisconnect([raw] { raw->Apply(raw->session_.OnUnreachable()); });
  link->Apply(link->session_.OnTick(loop.NowUs()));
  return link;
}

void SchedulerLink::Tick() {
  Apply(session_.OnTick(loop_.NowUs()));
}

void SchedulerLink::SendReport(const Report& report) {
  if (session_.joined()) (void)Send(report);
}

bool SchedulerLink::SendCacheEvents(const CacheEvents& events) {
  return session_.joined() && Send(events).ok();
}

void SchedulerLink::SayGoodbye(const std::string& reason) {
  if (session_.joined()) (void)client_->Send(Goodbye{reason});
}

Status SchedulerLink::Send(Message message) {
  Status sent = client_->Send(std::move(message));
  if (sent.code() == StatusCode::kUnavailable) Apply(session_.OnUnreachable());
  return sent;
}

void SchedulerLink::Apply(ClientSession::Step step) {
  for (const ClientSession::Event& event : step.events) {
    if (event.kind == ClientSession::Event::Kind::kJoined) {
      ++joined_count_;
      LogInfo("announced to scheduler",
              {{"scheduler", session_.peer_name()}, {"endpoint", client_->endpoint()}});
    } else if (event.on_purpose) {
      LogInfo("a scheduler left", {{"endpoint", client_->endpoint()}, {"why", event.reason}});
    } else {
      LogWarn("lost a scheduler", {{"endpoint", client_->endpoint()}, {"why", event.reason}});
    }
  }
  for (Message& message : step.send) (void)Send(std::move(message));
}

}  // namespace muselet
