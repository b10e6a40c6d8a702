#include "node/rank/rank_codec.h"

#include <google/protobuf/arena.h>

#include <limits>
#include <utility>
#include <variant>

#include "node/rank/rank_convert.h"

namespace muselet {
namespace {

namespace pb = muselet::rank::v1;

// Fills the arm of the envelope that belongs to a message.
class BodyWriter {
 public:
  explicit BodyWriter(pb::RankEnvelope& to) : to_(to) {}
  void operator()(const RankJoin& from) { ToWire(from, *to_.mutable_join()); }
  void operator()(const RankPut& from) { ToWire(from, *to_.mutable_put()); }
  void operator()(const RankReady& from) { ToWire(from, *to_.mutable_ready()); }
  void operator()(const RankDone& from) { ToWire(from, *to_.mutable_done()); }
  void operator()(const RankFault& from) { ToWire(from, *to_.mutable_broken()); }
  void operator()(const RankAlive& from) { ToWire(from, *to_.mutable_alive()); }
  void operator()(const RankForm& from) { ToWire(from, *to_.mutable_form()); }
  void operator()(const RankValue& from) { ToWire(from, *to_.mutable_value()); }
  void operator()(const RankStart& from) { ToWire(from, *to_.mutable_start()); }
  void operator()(const RankStep& from) { ToWire(from, *to_.mutable_step()); }
  void operator()(const RankAbort& from) { ToWire(from, *to_.mutable_abort()); }
  void operator()(const RankRefused& from) { ToWire(from, *to_.mutable_refused()); }
  void operator()(const LeaderAlive& from) { ToWire(from, *to_.mutable_leader_alive()); }

 private:
  pb::RankEnvelope& to_;
};

template <typename Struct, typename Proto>
Result<RankMessage> DecodeBody(const Proto& proto, const RankLimits& limits) {
  Struct body;
  RETURN_IF_ERROR(FromWire(proto, limits, body));
  return RankMessage(std::move(body));
}

Result<RankMessage> DecodeArm(const pb::RankEnvelope& proto, const RankLimits& limits) {
  switch (proto.body_case()) {
    case pb::RankEnvelope::kJoin:
      return DecodeBody<RankJoin>(proto.join(), limits);
    case pb::RankEnvelope::kPut:
      return DecodeBody<RankPut>(proto.put(), limits);
    case pb::RankEnvelope::kReady:
      return DecodeBody<RankReady>(proto.ready(), limits);
    case pb::RankEnvelope::kDone:
      return DecodeBody<RankDone>(proto.done(), limits);
    case pb::RankEnvelope::kBroken:
      return DecodeBody<RankFault>(proto.broken(), limits);
    case pb::RankEnvelope::kAlive:
      return DecodeBody<RankAlive>(proto.alive(), limits);
    case pb::RankEnvelope::kForm:
      return DecodeBody<RankForm>(proto.form(), limits);
    case pb::RankEnvelope::kValue:
      return DecodeBody<RankValue>(proto.value(), limits);
    case pb::RankEnvelope::kStart:
      return DecodeBody<RankStart>(proto.start(), limits);
    case pb::RankEnvelope::kStep:
      return DecodeBody<RankStep>(proto.step(), limits);
    case pb::RankEnvelope::kAbort:
      return DecodeBody<RankAbort>(proto.abort(), limits);
    case pb::RankEnvelope::kRefused:
      return DecodeBody<RankRefused>(proto.refused(), limits);
    case pb::RankEnvelope::kLeaderAlive:
      return DecodeBody<LeaderAlive>(proto.leader_alive(), limits);
    case pb::RankEnvelope::BODY_NOT_SET:
      break;
  }
  return InvalidArgument("rank message: no body that this version knows");
}

}  // namespace

RankLimits RankLimitsOf(const ModelInfo& info, uint32_t slots, uint32_t rows_max) {
  RankLimits limits;
  limits.vocab_size = info.vocab_size;
  limits.context_tokens = info.context_tokens;
  limits.block_tokens = info.block_tokens;
  for (const KvGroupInfo& group : info.kv_groups) limits.kv_blocks.push_back(group.block_count);
  limits.slots = slots;
  limits.rows_max = rows_max;
  return limits;
}

std::string EncodeRankMessage(const RankMessage& message) {
  google::protobuf::Arena arena;
  auto* proto = google::protobuf::Arena::CreateMessage<pb::RankEnvelope>(&arena);
  proto->set_version(kRankProtocolVersion);
  std::visit(BodyWriter(*proto), message);
  return proto->SerializeAsString();
}

Result<RankMessage> DecodeRankMessage(std::string_view bytes, const RankLimits& limits) {
  if (bytes.size() > limits.message_bytes_max ||
      bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return InvalidArgument("rank message: " + std::to_string(bytes.size()) +
                           " bytes, the limit is " + std::to_string(limits.message_bytes_max));
  }
  google::protobuf::Arena arena;
  auto* proto = google::protobuf::Arena::CreateMessage<pb::RankEnvelope>(&arena);
  if (!proto->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return InvalidArgument("rank message: " + std::to_string(bytes.size()) +
                           " bytes that are no message of this wire");
  }
  if (proto->version() != kRankProtocolVersion) {
    return PermissionDenied("rank message: wire version " + std::to_string(proto->version()) +
                            ", this process speaks " + std::to_string(kRankProtocolVersion) +
                            ": run the same release everywhere");
  }
  return DecodeArm(*proto, limits);
}

}  // namespace muselet
