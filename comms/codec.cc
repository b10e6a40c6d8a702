#include "comms/codec.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <variant>

#include "comms/wire_convert.h"
#include "wire.pb.h"

namespace muselet {
namespace {

namespace pb = muselet::wire::v1;

template <typename Struct, typename Proto>
Result<Message> DecodeBody(const Proto& proto) {
  Struct body;
  RETURN_IF_ERROR(FromWire(proto, body));
  return Message(std::move(body));
}

Result<Message> DecodeMessage(const pb::Envelope& proto) {
  switch (proto.body_case()) {
    case pb::Envelope::kHello:
      return DecodeBody<Hello>(proto.hello());
    case pb::Envelope::kWelcome:
      return DecodeBody<Welcome>(proto.welcome());
    case pb::Envelope::kUnknown:
      return Message(Unknown{});
    case pb::Envelope::kGoodbye:
      return DecodeBody<Goodbye>(proto.goodbye());
    case pb::Envelope::kHeartbeat:
      return Message(Heartbeat{});
    case pb::Envelope::kModelTable:
      return DecodeBody<ModelTable>(proto.model_table());
    case pb::Envelope::kPlace:
      return DecodeBody<Place>(proto.place());
    case pb::Envelope::kTicket:
      return DecodeBody<Ticket>(proto.ticket());
    case pb::Envelope::kRefused:
      return DecodeBody<Refused>(proto.refused());
    case pb::Envelope::kLost:
      return DecodeBody<Lost>(proto.lost());
    case pb::Envelope::kRelease:
      return DecodeBody<Release>(proto.release());
    case pb::Envelope::kSubmit:
      return DecodeBody<Submit>(proto.submit());
    case pb::Envelope::kCancel:
      return DecodeBody<Cancel>(proto.cancel());
    case pb::Envelope::kTokens:
      return DecodeBody<Tokens>(proto.tokens());
    case pb::Envelope::kReport:
      return DecodeBody<Report>(proto.report());
    case pb::Envelope::kCacheEvents:
      return DecodeBody<CacheEvents>(proto.cache_events());
    case pb::Envelope::kDrain:
      return DecodeBody<Drain>(proto.drain());
    case pb::Envelope::kDrainAnswer:
      return DecodeBody<DrainAnswer>(proto.drain_answer());
    case pb::Envelope::BODY_NOT_SET:
      break;
  }
  return InvalidArgument("envelope: no body that this version knows");
}

struct BodyWriter {
  pb::Envelope& proto;

  void operator()(const Hello& body) { ToWire(body, *proto.mutable_hello()); }
  void operator()(const Welcome& body) { ToWire(body, *proto.mutable_welcome()); }
  void operator()(const Unknown&) { proto.mutable_unknown(); }
  void operator()(const Goodbye& body) { ToWire(body, *proto.mutable_goodbye()); }
  void operator()(const Heartbeat&) { proto.mutable_heartbeat(); }
  void operator()(const ModelTable& body) { ToWire(body, *proto.mutable_model_table()); }
  void operator()(const Place& body) { ToWire(body, *proto.mutable_place()); }
  void operator()(const Ticket& body) { ToWire(body, *proto.mutable_ticket()); }
  void operator()(const Refused& body) { ToWire(body, *proto.mutable_refused()); }
  void operator()(const Lost& body) { ToWire(body, *proto.mutable_lost()); }
  void operator()(const Release& body) { ToWire(body, *proto.mutable_release()); }
  void operator()(const Submit& body) { ToWire(body, *proto.mutable_submit()); }
  void operator()(const Cancel& body) { ToWire(body, *proto.mutable_cancel()); }
  void operator()(const Tokens& body) { ToWire(body, *proto.mutable_tokens()); }
  void operator()(const Report& body) { ToWire(body, *proto.mutable_report()); }
  void operator()(const CacheEvents& body) { ToWire(body, *proto.mutable_cache_events()); }
  void operator()(const Drain& body) { ToWire(body, *proto.mutable_drain()); }
  void operator()(const DrainAnswer& body) { ToWire(body, *proto.mutable_drain_answer()); }
};

}  // namespace

std::string EncodeEnvelope(const Envelope& envelope) {
  google::protobuf::Arena arena;
  auto* proto = google::protobuf::Arena::CreateMessage<pb::Envelope>(&arena);
  proto->set_version(kProtocolVersion);
  proto->set_sender(envelope.sender);
  proto->set_instance(envelope.instance);
  proto->set_sequence(envelope.sequence);
  std::visit(BodyWriter{*proto}, envelope.body);
  return proto->SerializeAsString();
}

Result<Envelope> DecodeEnvelope(std::string_view bytes, size_t bytes_max) {
  const size_t limit = std::min<size_t>(bytes_max, std::numeric_limits<int>::max());
  if (bytes.size() > limit) {
    return InvalidArgument("envelope: " + std::to_string(bytes.size()) + " bytes, the limit is " +
                           std::to_string(limit));
  }
  google::protobuf::Arena arena;
  auto* proto = google::protobuf::Arena::CreateMessage<pb::Envelope>(&arena);
  if (!proto->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return InvalidArgument("envelope: the bytes are not a wire message");
  if (proto->version() != kProtocolVersion) {
    return InvalidArgument("envelope: wire version " + std::to_string(proto->version()) +
                           ", this process speaks " + std::to_string(kProtocolVersion) +
                           ": run the same release everywhere");
  }
  RETURN_IF_ERROR(CheckName(proto->sender(), "envelope.sender"));
  Envelope envelope;
  envelope.sender = std::move(*proto->mutable_sender());
  envelope.instance = proto->instance();
  envelope.sequence = proto->sequence();
  ASSIGN_OR_RETURN(envelope.body, DecodeMessage(*proto));
  return envelope;
}

}  // namespace muselet
