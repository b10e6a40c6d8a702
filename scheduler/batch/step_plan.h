// One step of a replica: which rows to compute, from which sequences, into which KV blocks. The
// leader numbers plans and hands the same plan to every rank; a rank executes plan k or dies, and
// decides nothing itself.
//
// Plain value; immutable once it left the batcher.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "base/check.h"
#include "base/status.h"
#include "base/types.h"

namespace muselet {

// Small dense number of a sequence that is being computed; per-sequence state on ranks is indexed
// by it. A slot is reused after its sequence ended.
using SequenceSlot = uint32_t;

// Stands in StepPlan::tokens for the token that an outstanding earlier plan samples for the same
// slot.
inline constexpr TokenId kTokenFromEarlierPlan = -1;

// KV groups of a model, at most: the retention rules that its layers have.
inline constexpr size_t kKvGroupsMax = 8;

// One number for each KV group, without allocation.
class PerKvGroup {
 public:
  PerKvGroup() = default;
  PerKvGroup(std::initializer_list<uint32_t> values) {
    for (const uint32_t value : values) push_back(value);
  }
  void push_back(uint32_t value) {
    CHECK(size_ < kKvGroupsMax, "a model has more than ", kKvGroupsMax, " KV groups");
    values_[size_++] = value;
  }
  void assign(size_t count, uint32_t value) {
    size_ = 0;
    while (size_ < count) push_back(value);
  }
  uint32_t operator[](size_t group) const { return values_[group]; }
  size_t size() const { return size_; }

 private:
  std::array<uint32_t, kKvGroupsMax> values_{};
  size_t size_ = 0;
};

// A run of consecutive positions of one sequence: a prefill chunk, or the one row of a decode.
struct SequenceSlice {
  SequenceSlot slot = 0;
  uint32_t first_position = 0;  // of the first row, in the sequence
  uint32_t row_begin = 0;       // index of the first row in StepPlan::tokens
  uint32_t row_count = 0;
  // The last `logits_rows` rows of the slice need logits: 0 for a prefill chunk that is not the
  // last, 1 to sample the next token, more when prompt logprobs were asked for.
  uint32_t logits_rows = 0;
  bool samples = false;  // the last row's logits give the next token
  // One block table per KV group: group g's table is
  // StepPlan::block_tables[table_begin[g] .. table_begin[g] + table_count[g]); position p lies in
  // entry p / block_tokens, at p % block_tokens. It covers every position up to the last row; in a
  // group with a window, entries that no row of the slice can see are 0.
  PerKvGroup table_begin;
  PerKvGroup table_count;
};

struct StepPlan {
  uint64_t number = 0;          // 1, 2, 3, ... within an epoch
  std::vector<TokenId> tokens;  // one a row
  std::vector<SequenceSlice> slices;
  std::vector<BlockId> block_tables;
  int64_t predicted_us = 0;  // how long it will take; nothing that is computed depends on it

  bool empty() const { return slices.empty(); }
  uint32_t row_count() const { return static_cast<uint32_t>(tokens.size()); }
};

// What a step gave for one slice; StepResult::slices is parallel to StepPlan::slices.
struct SliceResult {
  bool sampled = false;
  SampledToken token;  // if sampled
  Status fault;        // not OK: the slice gave nothing and its sequence ends with kError
  std::vector<SampledToken>
      prompt_logprobs;  // for positions first_position + 1 ... of the slice, if asked for
};
struct StepResult {
  std::vector<SliceResult> slices;
};

}  // namespace muselet
