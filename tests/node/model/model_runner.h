// Drives a Model by hand: sequences, their KV blocks, and plans over any mix of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "node/model/model.h"

namespace muselet::testing {

// A sequence under way: its tokens, how many were computed, its blocks in every KV group.
struct TestSequence {
  std::vector<TokenId> ids;
  uint32_t computed = 0;
  std::vector<BlockId> blocks;
};

// What a step is to do for one sequence: its next `rows` tokens.
struct Portion {
  TestSequence* sequence = nullptr;
  uint32_t rows = 1;
};

class ModelRunner {
 public:
  explicit ModelRunner(Model& model) : model_(model) {}

  // A sequence with blocks for `capacity` tokens. Blocks are handed out from the top down, so that
  // tables are not the identity.
  TestSequence Start(std::vector<TokenId> ids, uint32_t capacity) {
    const uint32_t size = model_.info().block_tokens;
    TestSequence sequence = {std::move(ids), 0, {}};
    for (uint32_t first = 0; first < capacity; first += size) {
      for (const KvGroupInfo& group : model_.info().kv_groups)
        CHECK(used_ < group.block_count, "the test's KV cache is too small");
      sequence.blocks.push_back(model_.info().kv_groups[0].block_count - ++used_);
    }
    return sequence;
  }

  // Computes the portions in one step. Logits [rows, V] of every row, in order.
  std::vector<float> Step(const std::vector<Portion>& portions) {
    StepPlan plan;
    plan.number = ++plans_;
    const size_t groups = model_.info().kv_groups.size();
    for (const auto& [sequence, rows] : portions) {
      SequenceSlice slice;
      slice.first_position = sequence->computed;
      slice.row_begin = plan.row_count();
      slice.row_count = rows;
      slice.logits_rows = rows;
      slice.table_count.assign(groups, static_cast<uint32_t>(sequence->blocks.size()));
      for (size_t group = 0; group < groups; ++group) {
        slice.table_begin.push_back(static_cast<uint32_t>(plan.block_tables.size()));
        for (const BlockId block : sequence->blocks)
          plan.block_tables.push_back(block + FromTheTop(group));
      }
      const auto from = sequence->ids.begin() + sequence->computed;
      plan.tokens.insert(plan.tokens.end(), from, from + rows);
      plan.slices.push_back(slice);
      sequence->computed += rows;
    }
    const auto logits = model_.Forward(plan);
    CHECK(logits.ok(), logits.status().message());
    return {logits->begin(), logits->end()};
  }

  // Logits [ids, V] of a whole text, `chunk` tokens a step.
  std::vector<float> Score(const std::vector<TokenId>& ids, uint32_t chunk) {
    TestSequence sequence = Start(ids, static_cast<uint32_t>(ids.size()));
    std::vector<float> logits;
    while (sequence.computed < ids.size()) {
      const auto left = static_cast<uint32_t>(ids.size()) - sequence.computed;
      const std::vector<float> part = Step({{&sequence, std::min(chunk, left)}});
      logits.insert(logits.end(), part.begin(), part.end());
    }
    Forget(sequence);
    return logits;
  }

  // The blocks of the youngest sequence are free again.
  void Forget(const TestSequence& youngest) {
    used_ -= static_cast<uint32_t>(youngest.blocks.size());
  }

  // The last row of `logits`.
  std::vector<float> LastRow(const std::vector<float>& logits) const {
    return {logits.end() - model_.info().vocab_size, logits.end()};
  }

 private:
  // What makes a block of group 0 one that is as far from the top of `group`, which may have fewer.
  BlockId FromTheTop(size_t group) const {
    const auto& groups = model_.info().kv_groups;
    return groups[group].block_count - groups[0].block_count;  // of unsigned numbers
  }

  Model& model_;
  uint32_t used_ = 0;
  uint64_t plans_ = 0;
};

inline TokenId Best(const std::vector<float>& row) {
  return static_cast<TokenId>(std::max_element(row.begin(), row.end()) - row.begin());
}

// log of the softmax of row[id], in double.
inline double LogProbability(const float* row, size_t size, TokenId id) {
  const double largest = *std::max_element(row, row + size);
  double sum = 0.0;
  for (size_t i = 0; i < size; ++i) sum += std::exp(row[i] - largest);
  return row[id] - largest - std::log(sum);
}

}  // namespace muselet::testing
