#include "comms/wire_convert.h"
#include "node/rank/rank_convert.h"

namespace muselet {
namespace {

namespace pb = muselet::rank::v1;

constexpr size_t kTextBytesSent = 4096;  // of a reason

std::string Clip(const std::string& text) {
  return text.substr(0, kTextBytesSent);
}

template <typename List, typename Column>
void Fill(const List& from, Column* to) {
  to->Add(from.begin(), from.end());
}

void ToWire(const Status& from, pb::Fault& to) {
  to.set_code(static_cast<uint32_t>(from.code()));
  to.set_message(Clip(from.message()));
}

void ToWire(const SliceResult& from, pb::Slice& to) {
  if (from.sampled) muselet::ToWire(from.token, *to.mutable_token());
  if (!from.fault.ok()) ToWire(from.fault, *to.mutable_fault());
  for (const SampledToken& token : from.prompt_logprobs)
    muselet::ToWire(token, *to.add_prompt_logprobs());
}

void ToWire(const StepPlan& from, pb::Plan& to) {
  to.set_number(from.number);
  to.set_predicted_us(from.predicted_us);
  Fill(from.tokens, to.mutable_tokens());
  for (const SequenceSlice& slice : from.slices) {
    to.add_slots(slice.slot);
    to.add_first_positions(slice.first_position);
    to.add_row_counts(slice.row_count);
    to.add_logits_rows(slice.logits_rows);
    to.add_samples(slice.samples);
    to.set_groups(static_cast<uint32_t>(slice.table_count.size()));
    for (size_t group = 0; group < slice.table_count.size(); ++group)
      to.add_table_counts(slice.table_count[group]);
  }
  Fill(from.block_tables, to.mutable_block_tables());
}

void ToWire(const SlotStart& from, pb::SlotStart& to) {
  to.set_slot(from.slot);
  to.set_choice(from.choice);
  to.set_prompt_count(from.prompt_count);
  to.set_token_limit(from.token_limit);
  Fill(from.tokens, to.mutable_tokens());
  muselet::ToWire(from.sampling, *to.mutable_sampling());
  muselet::ToWire(from.stop, *to.mutable_stop());
}

}  // namespace

void ToWire(const RankJoin& from, pb::Join& to) {
  to.set_replica(from.replica);
  to.set_rank(from.rank);
  to.set_node(from.node);
  to.set_host(from.host);
  to.set_instance(from.instance);
  to.set_pid(from.pid);
  to.set_session(from.session);
  to.set_epoch_seen(from.epoch_seen);
  to.set_software_version(from.agreement.software_version);
  to.set_model_digest(from.agreement.model_digest);
  to.set_shard_plan_digest(from.agreement.shard_plan_digest);
  to.set_numerics_id(from.agreement.numerics_id);
  Fill(from.agreement.kv_blocks, to.mutable_kv_blocks());
}

void ToWire(const RankPut& from, pb::Put& to) {
  to.set_epoch(from.epoch);
  to.set_key(from.key);
  to.set_value(from.value);
}

void ToWire(const RankReady& from, pb::Ready& to) {
  to.set_epoch(from.epoch);
}

void ToWire(const RankDone& from, pb::Done& to) {
  to.set_epoch(from.epoch);
  to.set_step(from.step);
  to.set_step_us(from.step_us);
  if (!from.fault.ok()) ToWire(from.fault, *to.mutable_fault());
  for (const SliceResult& slice : from.result.slices) ToWire(slice, *to.add_slices());
}

void ToWire(const RankFault& from, pb::Broken& to) {
  to.set_epoch(from.epoch);
  to.set_reason(Clip(from.reason));
}

void ToWire(const RankAlive& from, pb::Alive& to) {
  to.set_epoch(from.epoch);
  to.set_steps(from.steps);
  to.set_busy_us(from.busy_us);
}

void ToWire(const RankForm& from, pb::Form& to) {
  to.set_epoch(from.epoch);
  to.set_session(from.session);
  for (const RankPlace& place : from.places) {
    pb::Place& added = *to.add_places();
    added.set_node(place.node);
    added.set_host(place.host);
  }
  to.set_timeout_us(from.timeout_us);
}

void ToWire(const RankValue& from, pb::Value& to) {
  to.set_epoch(from.epoch);
  to.set_key(from.key);
  to.set_value(from.value);
}

void ToWire(const RankStart& from, pb::Start& to) {
  to.set_epoch(from.epoch);
}

void ToWire(const RankStep& from, pb::Step& to) {
  to.set_epoch(from.epoch);
  to.set_step(from.step);
  to.set_timeout_us(from.timeout_us);
  ToWire(from.plan, *to.mutable_plan());
  for (const SlotStart& start : from.starts) ToWire(start, *to.add_starts());
}

void ToWire(const RankAbort& from, pb::Abort& to) {
  to.set_epoch(from.epoch);
  to.set_on_purpose(from.on_purpose);
  to.set_reason(Clip(from.reason));
}

void ToWire(const RankRefused& from, pb::Refused& to) {
  to.set_session(from.session);
  to.set_reason(Clip(from.reason));
}

void ToWire(const LeaderAlive& from, pb::LeaderAlive& to) {
  to.set_epoch(from.epoch);
  to.set_waiting_for(Clip(from.waiting_for));
}

}  // namespace muselet
