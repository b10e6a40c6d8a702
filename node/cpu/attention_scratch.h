// The memory that attention works in: a score row a thread, and partial results that are merged in
// the order of positions. Grown to the largest step, then kept.
#pragma once

#include <vector>

#include "node/cpu/kernels.h"

namespace muselet::cpu {

// What one chunk of positions gave for the query heads that share a key/value head.
struct AttentionPartial {
  float* maximum = nullptr;  // [queries]
  float* sum = nullptr;      // [queries]
  float* values = nullptr;   // [queries, D]
};

// Not synchronised: Reserve from the step thread between jobs; a worker touches its own part, a
// partial is written by one tile.
class AttentionScratch {
 public:
  struct Worker {
    float* scores = nullptr;  // [queries, kAttentionChunk]
    AttentionPartial total, partial;
  };

  void Reserve(uint32_t threads, uint32_t queries, uint32_t head_dim) {
    queries_ = queries;
    partial_floats_ = (size_t{2} * queries + size_t{queries} * head_dim + 15) / 16 * 16;
    worker_floats_ = size_t{queries} * kAttentionChunk + 2 * partial_floats_;
    if (workers_.size() < threads * worker_floats_) workers_.resize(threads * worker_floats_);
  }
  void ReservePartials(size_t count) {
    if (partials_.size() < count * partial_floats_) partials_.resize(count * partial_floats_);
  }

  Worker worker(uint32_t index) {
    float* at = workers_.data() + index * worker_floats_;
    float* after = at + size_t{queries_} * kAttentionChunk;
    return {at, PartialAt(after), PartialAt(after + partial_floats_)};
  }
  AttentionPartial partial(size_t index) {
    return PartialAt(partials_.data() + index * partial_floats_);
  }

 private:
  AttentionPartial PartialAt(float* at) const { return {at, at + queries_, at + 2 * queries_}; }

  uint32_t queries_ = 0;
  size_t partial_floats_ = 0;
  size_t worker_floats_ = 0;
  std::vector<float> workers_, partials_;
};

}  // namespace muselet::cpu
