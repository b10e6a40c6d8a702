// All messages but the step's.
#include <utility>

#include "comms/wire_convert.h"
#include "node/rank/rank_convert.h"
#include "node/rank/wire_checks.h"

namespace muselet {
namespace {

namespace pb = muselet::rank::v1;

constexpr size_t kNameBytesMax = 1024;
constexpr size_t kTextBytesMax = 64 * 1024;

Status Take(const std::string& from, size_t bytes_max, std::string_view field, std::string& to) {
  RETURN_IF_ERROR(CheckSize(from.size(), bytes_max, field));
  to = from;
  return OkStatus();
}

Status TakeFault(const pb::Fault& from, std::string_view field, Status& to) {
  if (from.code() == 0 || from.code() > static_cast<uint32_t>(StatusCode::kInternal)) {
    return InvalidArgument(std::string(field) + ": " + std::to_string(from.code()) +
                           " is no fault that this version knows");
  }
  RETURN_IF_ERROR(CheckSize(from.message().size(), kTextBytesMax, field));
  to = Status(static_cast<StatusCode>(from.code()), from.message());
  return OkStatus();
}

Status TakeToken(const wire::v1::SampledToken& from, const RankLimits& limits, SampledToken& to) {
  RETURN_IF_ERROR(CheckSize(from.top_size(), limits.vocab_size, "done.token.top"));
  RETURN_IF_ERROR(muselet::FromWire(from, "done.token", to));
  for (const TokenLogprob& entry : to.top)
    RETURN_IF_ERROR(CheckTokenId(entry.id, limits.vocab_size, "done.token.top"));
  return CheckTokenId(to.id, limits.vocab_size, "done.token");
}

Status TakeSlice(const pb::Slice& from, const RankLimits& limits, SliceResult& to) {
  to.sampled = from.has_token();
  if (to.sampled) RETURN_IF_ERROR(TakeToken(from.token(), limits, to.token));
  if (from.has_fault()) RETURN_IF_ERROR(TakeFault(from.fault(), "done.slices.fault", to.fault));
  RETURN_IF_ERROR(
      CheckSize(from.prompt_logprobs_size(), limits.rows_max, "done.slices.prompt_logprobs"));
  to.prompt_logprobs.resize(from.prompt_logprobs_size());
  for (int i = 0; i < from.prompt_logprobs_size(); ++i)
    RETURN_IF_ERROR(TakeToken(from.prompt_logprobs(i), limits, to.prompt_logprobs[i]));
  return OkStatus();
}

}  // namespace

Status FromWire(const pb::Join& from, const RankLimits& /*limits*/, RankJoin& to) {
  RETURN_IF_ERROR(Take(from.replica(), kNameBytesMax, "join.replica", to.replica));
  RETURN_IF_ERROR(Take(from.node(), kNameBytesMax, "join.node", to.node));
  RETURN_IF_ERROR(Take(from.host(), kNameBytesMax, "join.host", to.host));
  RankAgreement& agreement = to.agreement;
  RETURN_IF_ERROR(Take(from.software_version(), kNameBytesMax, "join.software_version",
                       agreement.software_version));
  RETURN_IF_ERROR(
      Take(from.model_digest(), kNameBytesMax, "join.model_digest", agreement.model_digest));
  RETURN_IF_ERROR(Take(from.shard_plan_digest(), kNameBytesMax, "join.shard_plan_digest",
                       agreement.shard_plan_digest));
  RETURN_IF_ERROR(
      Take(from.numerics_id(), kNameBytesMax, "join.numerics_id", agreement.numerics_id));
  RETURN_IF_ERROR(CheckSize(from.kv_blocks_size(), kKvGroupsMax, "join.kv_blocks"));
  agreement.kv_blocks.assign(from.kv_blocks().begin(), from.kv_blocks().end());
  to.rank = from.rank();
  to.instance = from.instance();
  to.pid = from.pid();
  to.session = from.session();
  to.epoch_seen = from.epoch_seen();
  return OkStatus();
}

Status FromWire(const pb::Put& from, const RankLimits& /*limits*/, RankPut& to) {
  to.epoch = from.epoch();
  RETURN_IF_ERROR(Take(from.key(), kRankKeyBytesMax, "put.key", to.key));
  return Take(from.value(), kRankValueBytesMax, "put.value", to.value);
}

Status FromWire(const pb::Ready& from, const RankLimits& /*limits*/, RankReady& to) {
  to.epoch = from.epoch();
  return OkStatus();
}

Status FromWire(const pb::Done& from, const RankLimits& limits, RankDone& to) {
  RETURN_IF_ERROR(CheckDuration(from.step_us(), "done.step_us"));
  if (from.has_fault()) RETURN_IF_ERROR(TakeFault(from.fault(), "done.fault", to.fault));
  RETURN_IF_ERROR(CheckSize(from.slices_size(), limits.slots, "done.slices"));
  to.epoch = from.epoch();
  to.step = from.step();
  to.step_us = from.step_us();
  to.result.slices.resize(from.slices_size());
  for (int i = 0; i < from.slices_size(); ++i)
    RETURN_IF_ERROR(TakeSlice(from.slices(i), limits, to.result.slices[i]));
  return OkStatus();
}

Status FromWire(const pb::Broken& from, const RankLimits& /*limits*/, RankFault& to) {
  to.epoch = from.epoch();
  return Take(from.reason(), kTextBytesMax, "fault.reason", to.reason);
}

Status FromWire(const pb::Alive& from, const RankLimits& /*limits*/, RankAlive& to) {
  to.epoch = from.epoch();
  to.steps = from.steps();
  to.busy_us = from.busy_us();
  return CheckDuration(from.busy_us(), "alive.busy_us");
}

Status FromWire(const pb::Form& from, const RankLimits& /*limits*/, RankForm& to) {
  RETURN_IF_ERROR(CheckSize(from.places_size(), kEpochRanksMax, "form.places"));
  to.epoch = from.epoch();
  to.session = from.session();
  to.timeout_us = from.timeout_us();
  to.places.resize(from.places_size());
  for (int i = 0; i < from.places_size(); ++i) {
    RETURN_IF_ERROR(
        Take(from.places(i).node(), kNameBytesMax, "form.places.node", to.places[i].node));
    RETURN_IF_ERROR(
        Take(from.places(i).host(), kNameBytesMax, "form.places.host", to.places[i].host));
  }
  return CheckDuration(from.timeout_us(), "form.timeout_us");
}

Status FromWire(const pb::Value& from, const RankLimits& /*limits*/, RankValue& to) {
  to.epoch = from.epoch();
  RETURN_IF_ERROR(Take(from.key(), kRankKeyBytesMax, "value.key", to.key));
  return Take(from.value(), kRankValueBytesMax, "value.value", to.value);
}

Status FromWire(const pb::Start& from, const RankLimits& /*limits*/, RankStart& to) {
  to.epoch = from.epoch();
  return OkStatus();
}

Status FromWire(const pb::Abort& from, const RankLimits& /*limits*/, RankAbort& to) {
  to.epoch = from.epoch();
  to.on_purpose = from.on_purpose();
  return Take(from.reason(), kTextBytesMax, "abort.reason", to.reason);
}

Status FromWire(const pb::Refused& from, const RankLimits& /*limits*/, RankRefused& to) {
  to.session = from.session();
  return Take(from.reason(), kTextBytesMax, "refused.reason", to.reason);
}

Status FromWire(const pb::LeaderAlive& from, const RankLimits& /*limits*/, LeaderAlive& to) {
  to.epoch = from.epoch();
  return Take(from.waiting_for(), kTextBytesMax, "leader_alive.waiting_for", to.waiting_for);
}

}  // namespace muselet
