#include <cmath>
#include <utility>

#include "comms/wire_convert.h"

namespace muselet {
namespace {

namespace pb = muselet::wire::v1;

constexpr size_t kNameBytesMax = 1024;
constexpr size_t kTextBytesMax = 64 * 1024;  // reasons and error messages
constexpr int kReplicasMax = 1024;           // of one node
constexpr int kModelsMax = 4096;
constexpr int kSequenceTokensMax = 16 << 20;
constexpr int kVocabularyListMax = 1 << 20;  // end tokens, biases, alternatives of one token
constexpr int kSequencesMax = 1 << 20;
constexpr int kAvoidMax = 1024;
constexpr int kSurfacesMax = 4096;
constexpr int kCacheEventsMax = 1 << 20;  // of one message

Status TooLong(std::string_view field, size_t size, size_t limit) {
  return InvalidArgument(std::string(field) + ": size " + std::to_string(size) + ", the limit is " +
                         std::to_string(limit));
}

Status CheckText(std::string_view value, std::string_view field) {
  return value.size() > kTextBytesMax ? TooLong(field, value.size(), kTextBytesMax) : OkStatus();
}

Status CheckCount(int count, int limit, std::string_view field) {
  return count > limit ? TooLong(field, count, limit) : OkStatus();
}

Status Take(const std::string& from, std::string_view field, std::string& to) {
  RETURN_IF_ERROR(CheckName(from, field));
  to = from;
  return OkStatus();
}

template <typename Enum>
Status TakeEnum(uint32_t from, Enum last, std::string_view field, Enum& to) {
  if (from > static_cast<uint32_t>(last)) {
    return InvalidArgument(std::string(field) + ": " + std::to_string(from) +
                           " is no value that this version knows");
  }
  to = static_cast<Enum>(from);
  return OkStatus();
}

Status TakeDuration(int64_t from, std::string_view field, int64_t& to) {
  if (from < 0) return InvalidArgument(std::string(field) + ": negative");
  to = from;
  return OkStatus();
}

template <typename Proto>
Status TakeRequest(const Proto& from, std::string_view field, RequestId& to) {
  if (!from.has_request()) return InvalidArgument(std::string(field) + ": no request id");
  to = {from.request().high(), from.request().low()};
  return OkStatus();
}

template <typename Proto>
Status TakeSequence(const Proto& from, std::string_view field, SequenceId& to) {
  if (!from.has_sequence()) return InvalidArgument(std::string(field) + ": no sequence id");
  to.choice = from.sequence().choice();
  return TakeRequest(from.sequence(), field, to.request);
}

Status CheckToken(TokenId id, std::string_view field) {
  return id < 0 ? InvalidArgument(std::string(field) + ": negative token id") : OkStatus();
}

template <typename Ids>
Status TakeTokens(const Ids& from, int limit, std::string_view field, std::vector<TokenId>& to) {
  RETURN_IF_ERROR(CheckCount(from.size(), limit, field));
  for (const TokenId id : from) RETURN_IF_ERROR(CheckToken(id, field));
  to.assign(from.begin(), from.end());
  return OkStatus();
}

template <typename List>
Status TakeSampledList(const List& from, std::string_view field, std::vector<SampledToken>& to) {
  RETURN_IF_ERROR(CheckCount(from.size(), kSequenceTokensMax, field));
  to.resize(from.size());
  for (int i = 0; i < from.size(); ++i) RETURN_IF_ERROR(FromWire(from[i], field, to[i]));
  return OkStatus();
}

Status TakeReplica(const pb::ReplicaInfo& from, ReplicaInfo& to) {
  RETURN_IF_ERROR(Take(from.replica(), "hello.replicas.replica", to.replica));
  RETURN_IF_ERROR(Take(from.model(), "hello.replicas.model", to.model));
  RETURN_IF_ERROR(Take(from.model_digest(), "hello.replicas.model_digest", to.model_digest));
  RETURN_IF_ERROR(Take(from.numerics_id(), "hello.replicas.numerics_id", to.numerics_id));
  RETURN_IF_ERROR(Take(from.endpoint(), "hello.replicas.endpoint", to.endpoint));
  to.epoch = from.epoch();
  to.context_tokens = from.context_tokens();
  to.kv_tokens = from.kv_tokens();
  to.sequences_max = from.sequences_max();
  to.block_tokens = from.block_tokens();
  return OkStatus();
}

Status TakeUpdate(const pb::TokenUpdate& from, TokenUpdate& to) {
  RETURN_IF_ERROR(TakeSequence(from, "tokens.updates", to.sequence));
  RETURN_IF_ERROR(TakeSampledList(from.tokens(), "tokens.updates.tokens", to.tokens));
  RETURN_IF_ERROR(TakeSampledList(from.prompt_logprobs(), "tokens.updates.prompt_logprobs",
                                  to.prompt_logprobs));
  RETURN_IF_ERROR(
      TakeEnum(from.finish(), FinishReason::kError, "tokens.updates.finish", to.finish));
  RETURN_IF_ERROR(TakeEnum(from.error_code(), StatusCode::kInternal, "tokens.updates.error_code",
                           to.error_code));
  RETURN_IF_ERROR(CheckText(from.error(), "tokens.updates.error"));
  to.error = from.error();
  to.attempt = from.attempt();
  to.first_index = from.first_index();
  to.cached_prompt_tokens = from.cached_prompt_tokens();
  return OkStatus();
}

template <typename Hashes>
Status TakeHashes(const Hashes& from, int limit, std::string_view field,
                  std::vector<BlockHash>& to) {
  RETURN_IF_ERROR(CheckCount(from.size(), limit, field));
  to.reserve(from.size());
  for (const pb::BlockHash& hash : from) to.push_back({hash.high(), hash.low()});
  return OkStatus();
}

Status TakeQuota(const pb::QuotaState& from, std::string_view field, QuotaState& to) {
  RETURN_IF_ERROR(TakeDuration(from.requests_reset_us(), field, to.requests_reset_us));
  RETURN_IF_ERROR(TakeDuration(from.tokens_reset_us(), field, to.tokens_reset_us));
  to.requests_limit = from.requests_limit();
  to.requests_remaining = from.requests_remaining();
  to.tokens_limit = from.tokens_limit();
  to.tokens_remaining = from.tokens_remaining();
  return OkStatus();
}

}  // namespace

Status CheckName(std::string_view value, std::string_view field) {
  return value.size() > kNameBytesMax ? TooLong(field, value.size(), kNameBytesMax) : OkStatus();
}

Status FromWire(const pb::SampledToken& from, std::string_view field, SampledToken& to) {
  RETURN_IF_ERROR(CheckToken(from.id(), field));
  RETURN_IF_ERROR(CheckCount(from.top_size(), kVocabularyListMax, field));
  to.id = from.id();
  to.logprob = from.logprob();
  to.top.reserve(from.top_size());
  for (const pb::TokenLogprob& entry : from.top()) {
    RETURN_IF_ERROR(CheckToken(entry.id(), field));
    to.top.push_back({entry.id(), entry.logprob()});
  }
  return OkStatus();
}

Status FromWire(const pb::SamplingParams& from, std::string_view field, SamplingParams& to) {
  const std::string biases = std::string(field) + ".logit_bias";
  RETURN_IF_ERROR(CheckCount(from.logit_bias_size(), kVocabularyListMax, biases));
  to.temperature = from.temperature();
  to.top_k = from.top_k();
  to.top_p = from.top_p();
  to.min_p = from.min_p();
  to.repetition_penalty = from.repetition_penalty();
  to.presence_penalty = from.presence_penalty();
  to.frequency_penalty = from.frequency_penalty();
  to.seed = from.seed();
  to.logprobs = from.logprobs();
  to.prompt_logprobs = from.prompt_logprobs();
  to.logit_bias.reserve(from.logit_bias_size());
  for (const pb::LogitBias& entry : from.logit_bias()) {
    RETURN_IF_ERROR(CheckToken(entry.id(), biases));
    to.logit_bias.emplace_back(entry.id(), entry.bias());
  }
  return OkStatus();
}

Status FromWire(const pb::StopRules& from, std::string_view field, StopRules& to) {
  to.max_tokens = from.max_tokens();
  to.min_tokens = from.min_tokens();
  return TakeTokens(from.end_tokens(), kVocabularyListMax, std::string(field) + ".end_tokens",
                    to.end_tokens);
}

Status FromWire(const pb::Hello& from, Hello& to) {
  RETURN_IF_ERROR(TakeEnum(from.role(), Role::kOperator, "hello.role", to.role));
  RETURN_IF_ERROR(Take(from.name(), "hello.name", to.name));
  RETURN_IF_ERROR(Take(from.software_version(), "hello.software_version", to.software_version));
  RETURN_IF_ERROR(CheckCount(from.replicas_size(), kReplicasMax, "hello.replicas"));
  to.protocol_version = from.protocol_version();
  to.replicas.resize(from.replicas_size());
  for (int i = 0; i < from.replicas_size(); ++i)
    RETURN_IF_ERROR(TakeReplica(from.replicas(i), to.replicas[i]));
  return OkStatus();
}

Status FromWire(const pb::Welcome& from, Welcome& to) {
  return Take(from.name(), "welcome.name", to.name);
}

Status FromWire(const pb::Goodbye& from, Goodbye& to) {
  RETURN_IF_ERROR(CheckText(from.reason(), "goodbye.reason"));
  to.reason = from.reason();
  return OkStatus();
}

Status FromWire(const pb::ModelTable& from, ModelTable& to) {
  RETURN_IF_ERROR(CheckCount(from.models_size(), kModelsMax, "model_table.models"));
  to.models.resize(from.models_size());
  for (int i = 0; i < from.models_size(); ++i) {
    const pb::ModelState& state = from.models(i);
    RETURN_IF_ERROR(Take(state.model(), "model_table.models.model", to.models[i].model));
    RETURN_IF_ERROR(
        Take(state.numerics_id(), "model_table.models.numerics_id", to.models[i].numerics_id));
    to.models[i].replicas_ready = state.replicas_ready();
    to.models[i].context_tokens = state.context_tokens();
  }
  return OkStatus();
}

Status FromWire(const pb::Place& from, Place& to) {
  RETURN_IF_ERROR(TakeRequest(from, "place", to.request));
  RETURN_IF_ERROR(Take(from.model(), "place.model", to.model));
  RETURN_IF_ERROR(Take(from.surface(), "place.surface", to.surface));
  RETURN_IF_ERROR(TakeEnum(from.request_class(), RequestClass::kBatch, "place.request_class",
                           to.request_class));
  RETURN_IF_ERROR(TakeDuration(from.timeout_us(), "place.timeout_us", to.timeout_us));
  RETURN_IF_ERROR(TakeHashes(from.block_hashes(), kSequenceTokensMax / 16, "place.block_hashes",
                             to.block_hashes));
  RETURN_IF_ERROR(CheckCount(from.avoid_size(), kAvoidMax, "place.avoid"));
  for (const std::string& replica : from.avoid())
    RETURN_IF_ERROR(Take(replica, "place.avoid", to.avoid.emplace_back()));
  to.attempt = from.attempt();
  to.choices = from.choices();
  to.prompt_tokens = from.prompt_tokens();
  to.max_tokens = from.max_tokens();
  to.alone = from.alone();
  return OkStatus();
}

Status FromWire(const pb::Ticket& from, Ticket& to) {
  RETURN_IF_ERROR(TakeRequest(from, "ticket", to.request));
  RETURN_IF_ERROR(Take(from.replica(), "ticket.replica", to.replica));
  RETURN_IF_ERROR(Take(from.endpoint(), "ticket.endpoint", to.endpoint));
  RETURN_IF_ERROR(TakeQuota(from.quota(), "ticket.quota", to.quota));
  RETURN_IF_ERROR(Take(from.numerics_id(), "ticket.numerics_id", to.numerics_id));
  to.attempt = from.attempt();
  to.epoch = from.epoch();
  return OkStatus();
}

Status FromWire(const pb::Refused& from, Refused& to) {
  RETURN_IF_ERROR(TakeRequest(from, "refused", to.request));
  RETURN_IF_ERROR(TakeEnum(from.code(), StatusCode::kInternal, "refused.code", to.code));
  RETURN_IF_ERROR(CheckText(from.message(), "refused.message"));
  RETURN_IF_ERROR(TakeDuration(from.retry_after_us(), "refused.retry_after_us", to.retry_after_us));
  RETURN_IF_ERROR(TakeQuota(from.quota(), "refused.quota", to.quota));
  if (to.code == StatusCode::kOk) return InvalidArgument("refused.code: ok is no refusal");
  to.attempt = from.attempt();
  to.message = from.message();
  return OkStatus();
}

Status FromWire(const pb::Lost& from, Lost& to) {
  RETURN_IF_ERROR(TakeRequest(from, "lost", to.request));
  RETURN_IF_ERROR(CheckText(from.reason(), "lost.reason"));
  to.attempt = from.attempt();
  to.reason = from.reason();
  to.suspect = from.suspect();
  return OkStatus();
}

Status FromWire(const pb::Release& from, Release& to) {
  to.attempt = from.attempt();
  to.generated_tokens = from.generated_tokens();
  return TakeRequest(from, "release", to.request);
}

Status FromWire(const pb::Submit& from, Submit& to) {
  RETURN_IF_ERROR(TakeSequence(from, "submit", to.sequence));
  RETURN_IF_ERROR(Take(from.replica(), "submit.replica", to.replica));
  RETURN_IF_ERROR(Take(from.surface(), "submit.surface", to.surface));
  RETURN_IF_ERROR(TakeEnum(from.request_class(), RequestClass::kBatch, "submit.request_class",
                           to.request_class));
  RETURN_IF_ERROR(TakeDuration(from.timeout_us(), "submit.timeout_us", to.timeout_us));
  RETURN_IF_ERROR(TakeTokens(from.prompt(), kSequenceTokensMax, "submit.prompt", to.prompt));
  RETURN_IF_ERROR(
      TakeTokens(from.generated(), kSequenceTokensMax, "submit.generated", to.generated));
  RETURN_IF_ERROR(FromWire(from.sampling(), "submit.sampling", to.sampling));
  RETURN_IF_ERROR(FromWire(from.stop(), "submit.stop", to.stop));
  to.attempt = from.attempt();
  to.epoch = from.epoch();
  to.cache_salt = from.cache_salt();
  if (!std::isfinite(from.share()) || from.share() <= 0)
    return InvalidArgument("submit.share: must be a number above 0");
  to.share = from.share();
  return OkStatus();
}

Status FromWire(const pb::Cancel& from, Cancel& to) {
  to.attempt = from.attempt();
  return TakeSequence(from, "cancel", to.sequence);
}

Status FromWire(const pb::Tokens& from, Tokens& to) {
  RETURN_IF_ERROR(CheckCount(from.updates_size(), kSequencesMax, "tokens.updates"));
  to.updates.resize(from.updates_size());
  for (int i = 0; i < from.updates_size(); ++i)
    RETURN_IF_ERROR(TakeUpdate(from.updates(i), to.updates[i]));
  return OkStatus();
}

Status FromWire(const pb::Report& from, Report& to) {
  RETURN_IF_ERROR(Take(from.replica(), "report.replica", to.replica));
  RETURN_IF_ERROR(TakeDuration(from.step_us(), "report.step_us", to.step_us));
  RETURN_IF_ERROR(CheckCount(from.active_size(), kSequencesMax, "report.active"));
  to.epoch = from.epoch();
  to.sequence = from.sequence();
  to.steps = from.steps();
  to.running = from.running();
  to.waiting = from.waiting();
  to.kv_blocks_used = from.kv_blocks_used();
  to.kv_blocks_total = from.kv_blocks_total();
  to.draining = from.draining();
  to.active.resize(from.active_size());
  for (int i = 0; i < from.active_size(); ++i) {
    const pb::SequenceId& sequence = from.active(i);
    to.active[i].choice = sequence.choice();
    RETURN_IF_ERROR(TakeRequest(sequence, "report.active", to.active[i].request));
  }
  if (!std::isfinite(from.prefill_token_us()) || from.prefill_token_us() < 0)
    return InvalidArgument("report.prefill_token_us: must be a number, 0 or more");
  to.prefill_tokens = from.prefill_tokens();
  to.prefill_token_us = from.prefill_token_us();
  to.schedulers = from.schedulers();
  RETURN_IF_ERROR(CheckCount(from.served_size(), kSurfacesMax, "report.served"));
  to.served.resize(from.served_size());
  for (int i = 0; i < from.served_size(); ++i) {
    RETURN_IF_ERROR(Take(from.served(i).surface(), "report.served.surface", to.served[i].surface));
    to.served[i].tokens = from.served(i).tokens();
  }
  return OkStatus();
}

Status FromWire(const pb::CacheEvents& from, CacheEvents& to) {
  RETURN_IF_ERROR(Take(from.replica(), "cache_events.replica", to.replica));
  RETURN_IF_ERROR(TakeHashes(from.added(), kCacheEventsMax, "cache_events.added", to.added));
  RETURN_IF_ERROR(TakeHashes(from.removed(), kCacheEventsMax, "cache_events.removed", to.removed));
  to.epoch = from.epoch();
  to.sequence = from.sequence();
  to.snapshot = from.snapshot();
  return OkStatus();
}

Status FromWire(const pb::Drain& from, Drain& to) {
  return Take(from.name(), "drain.name", to.name);
}

Status FromWire(const pb::DrainAnswer& from, DrainAnswer& to) {
  RETURN_IF_ERROR(Take(from.name(), "drain_answer.name", to.name));
  RETURN_IF_ERROR(CheckText(from.detail(), "drain_answer.detail"));
  to.known = from.known();
  to.detail = from.detail();
  return OkStatus();
}

}  // namespace muselet
