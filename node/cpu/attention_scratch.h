// The memory that attention works in: a thread's own, and partial results that are merged in the
// order of positions. Grown to the largest step, then kept.
#pragma once

#include <vector>

#include "node/cpu/kernels.h"

namespace muselet::cpu {

// What one chunk of positions gave for each lane (kernels.h).
struct AttentionPartial {
  float* maximum = nullptr;  // [lanes]
  float* sum = nullptr;      // [lanes]
  float* values = nullptr;   // [lanes, D]
};

// Not synchronised: Reserve from the step thread between jobs; a worker touches its own part, a
// partial is written by one tile.
class AttentionScratch {
 public:
  struct Worker {
    float* scores = nullptr;     // [lanes, kAttentionChunk]
    float* converted = nullptr;  // [kConvertedTokens, D]
    AttentionPartial total, partial;
  };

  // `lanes`: the most that one tile computes.
  void Reserve(uint32_t threads, uint32_t lanes, uint32_t head_dim) {
    lanes_ = lanes;
    converted_floats_ = size_t{kConvertedTokens} * head_dim;
    partial_floats_ = RoundUp(size_t{2} * lanes + size_t{lanes} * head_dim);
    worker_floats_ =
        size_t{lanes} * kAttentionChunk + RoundUp(converted_floats_) + 2 * partial_floats_;
    if (workers_.size() < threads * worker_floats_) workers_.resize(threads * worker_floats_);
  }
  void ReservePartials(size_t count) {
    if (partials_.size() < count * partial_floats_) partials_.resize(count * partial_floats_);
  }

  Worker worker(uint32_t index) {
    float* const scores = workers_.data() + index * worker_floats_;
    float* const converted = scores + size_t{lanes_} * kAttentionChunk;
    float* const after = converted + RoundUp(converted_floats_);
    return {scores, converted, PartialAt(after), PartialAt(after + partial_floats_)};
  }
  AttentionPartial partial(size_t index) {
    return PartialAt(partials_.data() + index * partial_floats_);
  }

 private:
  // To whole cache lines.
  static size_t RoundUp(size_t floats) { return (floats + 15) / 16 * 16; }
  AttentionPartial PartialAt(float* at) const { return {at, at + lanes_, at + 2 * lanes_}; }

  uint32_t lanes_ = 0;
  size_t converted_floats_ = 0;
  size_t partial_floats_ = 0;
  size_t worker_floats_ = 0;
  std::vector<float> workers_, partials_;
};

}  // namespace muselet::cpu
