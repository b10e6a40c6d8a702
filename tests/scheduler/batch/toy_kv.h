// A toy model over real block tables: the KV of a position is a hash of all tokens up to it,
// computed from the KV of the position before, and the next token is a function of that. A block
// that is shared, freed, evicted or left stale at the wrong time therefore changes the tokens.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "scheduler/batch/prefix_cache.h"
#include "scheduler/batch/step_plan.h"

namespace muselet::testing {

inline uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ (b + 0x9E3779B97F4A7C15ULL)) * 0xBF58476D1CE4E5B9ULL;
  x ^= x >> 29;
  x *= 0x94D049BB133111EBULL;
  return x ^ (x >> 32);
}

class ToyKv {
 public:
  ToyKv(const KvPoolShape& shape, uint32_t vocab_size) : shape_(shape), vocab_size_(vocab_size) {
    for (const KvPoolGroup& group : shape.groups) {
      cells_.emplace_back(size_t{group.block_count} * shape.block_tokens, 0xDEAD);
    }
  }

  // What follows `tokens`, computed without any KV.
  static uint64_t Reference(const KvPoolShape& shape, std::span<const TokenId> tokens) {
    uint64_t result = 0;
    for (const KvPoolGroup& group : shape.groups) {
      const size_t window = group.window_tokens;
      const size_t first = window == 0 || tokens.size() < window ? 0 : tokens.size() - window;
      uint64_t sum = 0;
      for (size_t i = first; i < tokens.size(); ++i)
        sum = Mix(sum, static_cast<uint64_t>(tokens[i]));
      result = Mix(result, sum);
    }
    return result;
  }
  TokenId TokenOf(uint64_t state) const { return static_cast<TokenId>(state % vocab_size_); }

  // Runs the plan; the state after each row that needs logits, in the order of Model::Forward.
  std::vector<uint64_t> Run(const StepPlan& plan) {
    std::vector<uint64_t> states;
    for (const SequenceSlice& slice : plan.slices) {
      for (uint32_t row = 0; row < slice.row_count; ++row) {
        TokenId token = plan.tokens[slice.row_begin + row];
        if (token == kTokenFromEarlierPlan) token = last_token_[slice.slot];
        const uint64_t state = RunRow(plan, slice, slice.first_position + row, token);
        if (row + slice.logits_rows >= slice.row_count) states.push_back(state);
        if (slice.samples && row + 1 == slice.row_count) last_token_[slice.slot] = TokenOf(state);
      }
    }
    return states;
  }

 private:
  uint64_t& Cell(const StepPlan& plan, const SequenceSlice& slice, size_t group,
                 uint32_t position) {
    const uint32_t block =
        plan.block_tables[slice.table_begin[group] + position / shape_.block_tokens];
    return cells_[group][size_t{block} * shape_.block_tokens + position % shape_.block_tokens];
  }

  uint64_t RunRow(const StepPlan& plan, const SequenceSlice& slice, uint32_t position,
                  TokenId token) {
    uint64_t result = 0;
    for (size_t group = 0; group < shape_.groups.size(); ++group) {
      const uint32_t window = shape_.groups[group].window_tokens;
      uint64_t sum = 0;
      if (window == 0) {
        // The cell is the hash so far.
        if (position > 0) sum = Cell(plan, slice, group, position - 1);
        sum = Mix(sum, static_cast<uint64_t>(token));
        Cell(plan, slice, group, position) = sum;
      } else {
        // The cell is the token; the row reads its window.
        Cell(plan, slice, group, position) = static_cast<uint64_t>(token);
        const uint32_t first = position + 1 <= window ? 0 : position + 1 - window;
        for (uint32_t i = first; i <= position; ++i) sum = Mix(sum, Cell(plan, slice, group, i));
      }
      result = Mix(result, sum);
    }
    return result;
  }

  KvPoolShape shape_;
  uint32_t vocab_size_;
  std::vector<std::vector<uint64_t>> cells_;  // [group][block * block_tokens + offset]
  std::unordered_map<SequenceSlot, TokenId> last_token_;
};

}  // namespace muselet::testing
