// The memory that attention works in: a thread's own, and partial results that are merged in the
// order of positions. Grown to the largest step, then kept.
#pragma once

#include <cstddef>
#include <cstdint>
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
    head_dim_ = head_dim;
    converted_floats_ = size_t{kConvertedTokens} * head_dim;
    worker_floats_ =
        size_t{lanes} * kAttentionChunk + RoundUp(converted_floats_) + 2 * PartialFloats(lanes);
    Grow(workers_, threads * worker_floats_);
  }
  // What `count` partials of up to `lanes` lanes take.
  size_t PartialBytes(size_t count, uint32_t lanes) const {
    return count * PartialFloats(lanes) * sizeof(float);
  }
  // `count` partials of up to `lanes` lanes. REQUIRES: Reserve was called for this step.
  void ReservePartials(size_t count, uint32_t lanes) {
    partial_lanes_ = lanes;
    Grow(partials_, count * PartialFloats(lanes));
  }

  size_t bytes() const { return (workers_.size() + partials_.size()) * sizeof(float); }

  Worker worker(uint32_t index) {
    float* const scores = Begin(workers_) + index * worker_floats_;
    float* const converted = scores + size_t{lanes_} * kAttentionChunk;
    float* const after = converted + RoundUp(converted_floats_);
    return {scores, converted, PartialAt(after, lanes_),
            PartialAt(after + PartialFloats(lanes_), lanes_)};
  }
  AttentionPartial partial(size_t index) {
    return PartialAt(Begin(partials_) + index * PartialFloats(partial_lanes_), partial_lanes_);
  }

 private:
  static constexpr size_t kLineFloats = 16;

  // To whole cache lines.
  static size_t RoundUp(size_t floats) {
    return (floats + kLineFloats - 1) / kLineFloats * kLineFloats;
  }
  // Room for `floats` from the first whole cache line on.
  static void Grow(std::vector<float>& memory, size_t floats) {
    if (memory.size() < floats + kLineFloats) memory.resize(floats + kLineFloats);
  }
  static float* Begin(std::vector<float>& memory) {
    const auto past = reinterpret_cast<uintptr_t>(memory.data()) % (kLineFloats * sizeof(float));
    return memory.data() + (past == 0 ? 0 : kLineFloats - past / sizeof(float));
  }
  size_t PartialFloats(uint32_t lanes) const {
    return RoundUp(size_t{2} * lanes + size_t{lanes} * head_dim_);
  }
  // The values first, for their alignment.
  AttentionPartial PartialAt(float* at, uint32_t lanes) const {
    float* const maximum = at + size_t{lanes} * head_dim_;
    return {maximum, maximum + lanes, at};
  }

  uint32_t lanes_ = 0;
  uint32_t partial_lanes_ = 0;
  uint32_t head_dim_ = 0;
  size_t converted_floats_ = 0;
  size_t worker_floats_ = 0;
  std::vector<float> workers_, partials_;
};

}  // namespace muselet::cpu
