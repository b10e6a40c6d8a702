#include "node/gateway/peer_link.h"

#include <utility>

namespace muselet {
namespace {

Hello GatewayHello(const PeerLinkOptions& options) {
  Hello hello;
  hello.role = Role::kGateway;
  hello.name = options.name;
  hello.software_version = options.software_version;
  return hello;
}

}  // namespace

PeerLink::PeerLink(EventLoop& loop, const PeerLinkOptions& options, Callbacks callbacks)
    : loop_(loop),
      callbacks_(std::move(callbacks)),
      session_(GatewayHello(options), {options.heartbeat_interval_us, options.peer_timeout_us}) {}

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
  link->client_->OnDisconnect([raw] { raw->Apply(raw->session_.OnUnreachable()); });
  link->Tick(loop.NowUs());
  return link;
}

PeerLink::~PeerLink() {
  if (up_) (void)client_->Send(Goodbye{"the gateway leaves"});
}

Status PeerLink::Send(Message message) {
  if (!up_) return Unavailable("not connected to " + client_->endpoint());
  Status status = client_->Send(std::move(message));
  if (status.code() == StatusCode::kUnavailable) Apply(session_.OnUnreachable());
  return status;
}

void PeerLink::Tick(int64_t now_us) {
  Apply(session_.OnTick(now_us));
}

void PeerLink::OnEnvelope(Envelope envelope) {
  ClientSession::Step step = session_.OnEnvelope(envelope, loop_.NowUs());
  const bool handshake = std::holds_alternative<Welcome>(envelope.body) ||
                         std::holds_alternative<Heartbeat>(envelope.body);
  const bool for_owner = step.known && !handshake;
  Apply(std::move(step));
  if (for_owner) callbacks_.message(std::move(envelope.body));
}

void PeerLink::Apply(ClientSession::Step step) {
  for (const ClientSession::Event& event : step.events) {
    up_ = event.kind == ClientSession::Event::Kind::kJoined;
    if (up_ && callbacks_.up) callbacks_.up();
    if (!up_ && callbacks_.down) callbacks_.down(event.reason, event.on_purpose);
  }
  for (Message& message : step.send) {
    if (client_->Send(std::move(message)).code() == StatusCode::kUnavailable)
      Apply(session_.OnUnreachable());
  }
}

}  // namespace muselet
