#include "node/gateway/peer_link.h"

#include <utility>

namespace muselet {

Result<std::unique_ptr<PeerLink>> PeerLink::Connect(EventLoop& loop, WireContext& context,
                                                    const LocalPeer& local,
                                                    const std::string& endpoint,
                                                    const PeerLinkOptions& options,
                                                    Callbacks callbacks) {
  std::unique_ptr<PeerLink> link(new PeerLink(loop, options, std::move(callbacks)));
  PeerLink* raw = link.get();
  ASSIGN_OR_RETURN(link->client_,
                   MessageClient::Connect(loop, context, local, endpoint, [raw](Envelope envelope) {
                     raw->OnEnvelope(std::move(envelope));
                   }));
  link->client_->OnDisconnect([raw] { raw->GoDown("the connection broke"); });
  link->SayHello(loop.NowUs());
  return link;
}

PeerLink::~PeerLink() {
  if (up_) (void)client_->Send(Goodbye{"gateway " + options_.name + " needs it no more"});
}

Status PeerLink::Send(Message message) {
  if (!up_) return Unavailable("not connected to " + client_->endpoint());
  Status status = client_->Send(std::move(message));
  if (status.code() == StatusCode::kUnavailable) GoDown("the connection broke");
  return status;
}

void PeerLink::Tick(int64_t now_us) {
  // If it was us who were stuck, what the peer said meanwhile is still unread.
  if (now_us - ticked_us_ > options_.peer_timeout_us / 2) heard_us_ = now_us;
  ticked_us_ = now_us;
  if (up_ && now_us - heard_us_ > options_.peer_timeout_us) GoDown("it is silent");
  if (!up_) {
    if (now_us >= next_hello_us_) SayHello(now_us);
    return;
  }
  if (now_us < next_heartbeat_us_) return;
  next_heartbeat_us_ = now_us + options_.heartbeat_interval_us;
  if (Send(Heartbeat{}).code() == StatusCode::kUnavailable) return;
  // A peer that has nothing to tell us is asked: a Hello is always answered.
  if (now_us - heard_us_ > options_.peer_timeout_us / 4) SayHello(now_us);
}

void PeerLink::SayHello(int64_t now_us) {
  next_hello_us_ = now_us + options_.heartbeat_interval_us;
  Hello hello;
  hello.role = Role::kGateway;
  hello.name = options_.name;
  hello.software_version = options_.software_version;
  // Not connected yet, or the queue is full: the next tick says it again.
  if (!client_->Send(std::move(hello)).ok()) next_hello_us_ = now_us;
}

void PeerLink::GoDown(const std::string& why) {
  if (!up_) return;
  up_ = false;
  next_hello_us_ = 0;
  if (callbacks_.down) callbacks_.down(why);
}

void PeerLink::OnEnvelope(Envelope envelope) {
  heard_us_ = loop_.NowUs();
  const bool restarted = peer_instance_ != 0 && envelope.instance != peer_instance_;
  peer_instance_ = envelope.instance;
  if (restarted) GoDown("it restarted");
  if (std::holds_alternative<Unknown>(envelope.body)) {
    GoDown("it restarted and does not know us");
    SayHello(heard_us_);
    return;
  }
  if (const auto* welcome = std::get_if<Welcome>(&envelope.body)) {
    if (up_) return;
    up_ = true;
    peer_name_ = welcome->name;
    next_heartbeat_us_ = heard_us_ + options_.heartbeat_interval_us;
    if (callbacks_.up) callbacks_.up();
    return;
  }
  if (std::holds_alternative<Goodbye>(envelope.body)) {
    GoDown("it said goodbye");
    return;
  }
  if (up_ && !std::holds_alternative<Heartbeat>(envelope.body))
    callbacks_.message(std::move(envelope.body));
}

}  // namespace muselet
