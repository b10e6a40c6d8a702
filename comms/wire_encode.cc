#include "comms/wire_convert.h"

namespace muselet {
namespace {

namespace pb = muselet::wire::v1;

void Put(const RequestId& from, pb::RequestId& to) {
  to.set_high(from.high);
  to.set_low(from.low);
}

void Put(const SequenceId& from, pb::SequenceId& to) {
  Put(from.request, *to.mutable_request());
  to.set_choice(from.choice);
}

void Put(const ReplicaInfo& from, pb::ReplicaInfo& to) {
  to.set_replica(from.replica);
  to.set_model(from.model);
  to.set_model_digest(from.model_digest);
  to.set_numerics_id(from.numerics_id);
  to.set_endpoint(from.endpoint);
  to.set_epoch(from.epoch);
  to.set_context_tokens(from.context_tokens);
  to.set_kv_tokens(from.kv_tokens);
  to.set_sequences_max(from.sequences_max);
  to.set_block_tokens(from.block_tokens);
}

void Put(const TokenUpdate& from, pb::TokenUpdate& to) {
  Put(from.sequence, *to.mutable_sequence());
  to.set_attempt(from.attempt);
  to.set_first_index(from.first_index);
  for (const SampledToken& token : from.tokens) ToWire(token, *to.add_tokens());
  to.set_finish(static_cast<uint32_t>(from.finish));
  to.set_error_code(static_cast<uint32_t>(from.error_code));
  to.set_error(from.error);
  to.set_cached_prompt_tokens(from.cached_prompt_tokens);
  for (const SampledToken& token : from.prompt_logprobs) ToWire(token, *to.add_prompt_logprobs());
}

void Put(const BlockHash& from, pb::BlockHash& to) {
  to.set_high(from.high);
  to.set_low(from.low);
}

void Put(const QuotaState& from, pb::QuotaState& to) {
  to.set_requests_limit(from.requests_limit);
  to.set_requests_remaining(from.requests_remaining);
  to.set_requests_reset_us(from.requests_reset_us);
  to.set_tokens_limit(from.tokens_limit);
  to.set_tokens_remaining(from.tokens_remaining);
  to.set_tokens_reset_us(from.tokens_reset_us);
}

}  // namespace

void ToWire(const SampledToken& from, pb::SampledToken& to) {
  to.set_id(from.id);
  to.set_logprob(from.logprob);
  for (const TokenLogprob& entry : from.top) {
    pb::TokenLogprob& added = *to.add_top();
    added.set_id(entry.id);
    added.set_logprob(entry.logprob);
  }
}

void ToWire(const SamplingParams& from, pb::SamplingParams& to) {
  to.set_temperature(from.temperature);
  to.set_top_k(from.top_k);
  to.set_top_p(from.top_p);
  to.set_min_p(from.min_p);
  to.set_repetition_penalty(from.repetition_penalty);
  to.set_presence_penalty(from.presence_penalty);
  to.set_frequency_penalty(from.frequency_penalty);
  to.set_seed(from.seed);
  to.set_logprobs(from.logprobs);
  to.set_prompt_logprobs(from.prompt_logprobs);
  for (const auto& [id, bias] : from.logit_bias) {
    pb::LogitBias& added = *to.add_logit_bias();
    added.set_id(id);
    added.set_bias(bias);
  }
}

void ToWire(const StopRules& from, pb::StopRules& to) {
  to.set_max_tokens(from.max_tokens);
  to.set_min_tokens(from.min_tokens);
  to.mutable_end_tokens()->Add(from.end_tokens.begin(), from.end_tokens.end());
}

void ToWire(const Hello& from, pb::Hello& to) {
  to.set_role(static_cast<uint32_t>(from.role));
  to.set_name(from.name);
  to.set_software_version(from.software_version);
  to.set_protocol_version(from.protocol_version);
  for (const ReplicaInfo& replica : from.replicas) Put(replica, *to.add_replicas());
}

void ToWire(const Welcome& from, pb::Welcome& to) {
  to.set_name(from.name);
}

void ToWire(const Goodbye& from, pb::Goodbye& to) {
  to.set_reason(from.reason);
}

void ToWire(const ModelTable& from, pb::ModelTable& to) {
  for (const ModelState& model : from.models) {
    pb::ModelState& added = *to.add_models();
    added.set_model(model.model);
    added.set_numerics_id(model.numerics_id);
    added.set_replicas_ready(model.replicas_ready);
    added.set_context_tokens(model.context_tokens);
  }
}

void ToWire(const Place& from, pb::Place& to) {
  Put(from.request, *to.mutable_request());
  to.set_attempt(from.attempt);
  to.set_model(from.model);
  to.set_surface(from.surface);
  to.set_request_class(static_cast<uint32_t>(from.request_class));
  to.set_choices(from.choices);
  to.set_prompt_tokens(from.prompt_tokens);
  to.set_max_tokens(from.max_tokens);
  to.set_timeout_us(from.timeout_us);
  for (const BlockHash& hash : from.block_hashes) Put(hash, *to.add_block_hashes());
  for (const std::string& replica : from.avoid) to.add_avoid(replica);
  to.set_alone(from.alone);
}

void ToWire(const Ticket& from, pb::Ticket& to) {
  Put(from.request, *to.mutable_request());
  to.set_attempt(from.attempt);
  to.set_replica(from.replica);
  to.set_endpoint(from.endpoint);
  to.set_epoch(from.epoch);
  if (from.quota != QuotaState()) Put(from.quota, *to.mutable_quota());
  to.set_numerics_id(from.numerics_id);
}

void ToWire(const Refused& from, pb::Refused& to) {
  Put(from.request, *to.mutable_request());
  to.set_attempt(from.attempt);
  to.set_code(static_cast<uint32_t>(from.code));
  to.set_message(from.message);
  to.set_retry_after_us(from.retry_after_us);
  if (from.quota != QuotaState()) Put(from.quota, *to.mutable_quota());
}

void ToWire(const Lost& from, pb::Lost& to) {
  Put(from.request, *to.mutable_request());
  to.set_attempt(from.attempt);
  to.set_reason(from.reason);
  to.set_suspect(from.suspect);
}

void ToWire(const Release& from, pb::Release& to) {
  Put(from.request, *to.mutable_request());
  to.set_attempt(from.attempt);
  to.set_generated_tokens(from.generated_tokens);
}

void ToWire(const Submit& from, pb::Submit& to) {
  Put(from.sequence, *to.mutable_sequence());
  to.set_attempt(from.attempt);
  to.set_epoch(from.epoch);
  to.set_replica(from.replica);
  to.set_surface(from.surface);
  to.set_request_class(static_cast<uint32_t>(from.request_class));
  to.set_share(from.share);
  to.set_cache_salt(from.cache_salt);
  to.set_timeout_us(from.timeout_us);
  to.mutable_prompt()->Add(from.prompt.begin(), from.prompt.end());
  to.mutable_generated()->Add(from.generated.begin(), from.generated.end());
  ToWire(from.sampling, *to.mutable_sampling());
  ToWire(from.stop, *to.mutable_stop());
}

void ToWire(const Cancel& from, pb::Cancel& to) {
  Put(from.sequence, *to.mutable_sequence());
  to.set_attempt(from.attempt);
}

void ToWire(const Tokens& from, pb::Tokens& to) {
  for (const TokenUpdate& update : from.updates) Put(update, *to.add_updates());
}

void ToWire(const Report& from, pb::Report& to) {
  to.set_replica(from.replica);
  to.set_epoch(from.epoch);
  to.set_sequence(from.sequence);
  to.set_steps(from.steps);
  to.set_step_us(from.step_us);
  to.set_running(from.running);
  to.set_waiting(from.waiting);
  to.set_kv_blocks_used(from.kv_blocks_used);
  to.set_kv_blocks_total(from.kv_blocks_total);
  to.set_draining(from.draining);
  for (const SequenceId& sequence : from.active) Put(sequence, *to.add_active());
  to.set_prefill_tokens(from.prefill_tokens);
  to.set_prefill_token_us(from.prefill_token_us);
  to.set_schedulers(from.schedulers);
  for (const SurfaceTokens& served : from.served) {
    pb::SurfaceTokens& added = *to.add_served();
    added.set_surface(served.surface);
    added.set_tokens(served.tokens);
  }
}

void ToWire(const CacheEvents& from, pb::CacheEvents& to) {
  to.set_replica(from.replica);
  to.set_epoch(from.epoch);
  to.set_sequence(from.sequence);
  to.set_snapshot(from.snapshot);
  for (const BlockHash& hash : from.added) Put(hash, *to.add_added());
  for (const BlockHash& hash : from.removed) Put(hash, *to.add_removed());
}

void ToWire(const Drain& from, pb::Drain& to) {
  to.set_name(from.name);
}

void ToWire(const DrainAnswer& from, pb::DrainAnswer& to) {
  to.set_name(from.name);
  to.set_known(from.known);
  to.set_detail(from.detail);
}

}  // namespace muselet
