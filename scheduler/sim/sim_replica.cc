#include "scheduler/sim/sim_replica.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace muselet {
namespace {

BatchModel ModelOf(const SimReplicaOptions& options) {
  BatchModel model;
  model.vocab_size = options.vocab_size;
  model.context_tokens = options.context_tokens;
  model.kv.block_tokens = options.block_tokens;
  model.kv.groups.push_back({options.block_count, 0});
  return model;
}

}  // namespace

SimReplica::SimReplica(SimWorld& world, SimProcess process, const SimReplicaOptions& options,
                       UpdatesHandler handler)
    : world_(world),
      process_(process),
      options_(options),
      handler_(std::move(handler)),
      batcher_(options.batch, ModelOf(options)),
      engine_(options.vocab_size, options.batch.sequences_max,
              options.checks_cache ? options.block_count : 0, options.block_tokens),
      runs_(options.batch.sequences_max) {}

void SimReplica::Admit(Submit submit) {
  TokenUpdate refusal;
  refusal.sequence = submit.sequence;
  refusal.attempt = submit.attempt;
  const Status status = batcher_.Admit(std::move(submit), world_.now_us());
  if (!status.ok()) {
    refusal.finish = FinishReason::kError;
    refusal.error_code = status.code();
    refusal.error = status.message();
    handler_({std::move(refusal)});
  }
  Go();
  HandOver();
}

void SimReplica::Cancel(const SequenceId& sequence, uint32_t attempt) {
  batcher_.Cancel(sequence, attempt);
  Go();
  HandOver();
}

// What came in at the same moment is planned together.
void SimReplica::Go() {
  if (computing_) return;
  computing_ = true;
  world_.After(process_, 0, [this, turn = ++turn_] {
    if (turn == turn_) BeginStep();
  });
}

bool SimReplica::MakePlan() {
  StepPlan plan = batcher_.Plan(world_.now_us());
  if (plan.empty()) return false;
  std::vector<SlotBegin> begins;
  for (const SequenceSlice& slice : plan.slices) {
    const Sequence& sequence = batcher_.InSlot(slice.slot);
    if (std::exchange(runs_[slice.slot], sequence.run) == sequence.run) continue;
    begins.push_back({slice.slot, sequence.record.sampling.seed, sequence.record.sequence.choice});
  }
  const int64_t cost_us = CostUs(plan);
  outstanding_.push_back({std::move(plan), cost_us, std::move(begins)});
  return true;
}

int64_t SimReplica::CostUs(const StepPlan& plan) {
  StepLoad load;
  double sampled = 0;
  for (const SequenceSlice& slice : plan.slices) {
    load = load + SliceLoad(slice.first_position, slice.row_count);
    sampled += slice.logits_rows;
  }
  const double noise = options_.noise > 0 ? 1 + options_.noise * world_.random().Unit() : 1;
  return std::max<int64_t>(
      1, static_cast<int64_t>(options_.cost.Us(load, sampled) * noise * slowness_));
}

void SimReplica::BeginStep() {
  if (outstanding_.empty() && !MakePlan()) {
    computing_ = false;
    HandOver();
    CHECK(batcher_.idle(), "sequences wait and nothing runs");
    return;
  }
  const int64_t cost_us = outstanding_.front().cost_us;
  const uint64_t turn = ++turn_;
  world_.After(process_, cost_us / 2, [this, turn] {
    if (turn != turn_) return;
    if (outstanding_.size() < 2) MakePlan();
    HandOver();  // of those whose time was over
  });
  world_.After(process_, cost_us, [this, turn] {
    if (turn == turn_) EndStep();
  });
}

StepResult SimReplica::Compute(const Planned& step) {
  if (options_.checks_cache) {
    for (const SlotBegin& begin : step.begins) engine_.Begin(begin.slot, begin.seed, begin.choice);
    return engine_.Compute(step.plan);
  }
  StepResult result;
  result.slices.resize(step.plan.slices.size());
  for (size_t i = 0; i < step.plan.slices.size(); ++i)
    result.slices[i].sampled = step.plan.slices[i].samples;
  return result;
}

void SimReplica::EndStep() {
  Planned step = std::move(outstanding_.front());
  outstanding_.pop_front();
  busy_us_ += step.cost_us;
  const Status fault = std::exchange(next_fault_, OkStatus());
  if (fault.ok()) {
    step_us_ = steps_ == 0 ? step.cost_us : step_us_ + (step.cost_us - step_us_) / 8;
    ++steps_;
    batcher_.Commit(step.plan.number, Compute(step), step.cost_us, world_.now_us());
  } else {
    batcher_.Fail(step.plan.number, fault);
  }
  batcher_.Recycle(std::move(step.plan));
  BeginStep();
  HandOver();
}

void SimReplica::LoseState() {
  batcher_.Reset();
  engine_.Forget();
  outstanding_.clear();
  ++turn_;
  computing_ = false;
  Go();
}

void SimReplica::HandOver() {
  std::vector<TokenUpdate> updates = batcher_.TakeUpdates();
  if (!updates.empty()) handler_(std::move(updates));
}

}  // namespace muselet
