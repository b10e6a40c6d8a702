#include "scheduler/sim/chain_model.h"

namespace muselet {

ChainAnswer::ChainAnswer(std::span<const TokenId> prompt, uint64_t seed, uint32_t choice,
                         uint32_t vocab)
    : seed_(seed), choice_(choice), vocab_(vocab) {
  for (const TokenId token : prompt) state_ = ChainModel::Extend(state_, token);
}

TokenId ChainAnswer::Next() {
  const TokenId token = ChainModel::Draw(state_, seed_, choice_, vocab_);
  state_ = ChainModel::Extend(state_, token);
  return token;
}

ChainEngine::ChainEngine(uint32_t vocab, uint32_t slots, uint32_t block_count,
                         uint32_t block_tokens)
    : vocab_(vocab),
      block_tokens_(block_tokens),
      slots_(slots),
      states_(size_t{block_count} * block_tokens) {}

void ChainEngine::Begin(SequenceSlot slot, uint64_t seed, uint32_t choice) {
  slots_[slot] = {seed, choice, 0};
}

StepResult ChainEngine::Compute(const StepPlan& plan) {
  StepResult result;
  result.slices.resize(plan.slices.size());
  for (size_t i = 0; i < plan.slices.size(); ++i) {
    const SequenceSlice& slice = plan.slices[i];
    Slot& slot = slots_[slice.slot];
    const BlockId* table = plan.block_tables.data() + slice.table_begin[0];
    const auto cell = [&](uint32_t position) -> uint64_t& {
      return states_[size_t{table[position / block_tokens_]} * block_tokens_ +
                     position % block_tokens_];
    };
    uint64_t state =
        slice.first_position == 0 ? ChainModel::kBegin : cell(slice.first_position - 1);
    for (uint32_t row = 0; row < slice.row_count; ++row) {
      const TokenId planned = plan.tokens[slice.row_begin + row];
      const TokenId token = planned == kTokenFromEarlierPlan ? slot.last : planned;
      state = ChainModel::Extend(state, token);
      cell(slice.first_position + row) = state;
    }
    if (!slice.samples) continue;
    slot.last = ChainModel::Draw(state, slot.seed, slot.choice, vocab_);
    result.slices[i].sampled = true;
    result.slices[i].token.id = slot.last;
  }
  return result;
}

void ChainEngine::Forget() {
  states_.assign(states_.size(), 0);
}

}  // namespace muselet
