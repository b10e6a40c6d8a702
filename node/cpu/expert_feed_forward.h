// Ops::ExpertFeedForward: rows are sorted by the experts they go to, each expert multiplies its
// rows at once, and every row adds up what came back in a fixed order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/device/ops.h"
#include "node/cpu/kernels.h"
#include "node/cpu/packed_matrix.h"
#include "node/cpu/quantized_buffer.h"
#include "node/cpu/thread_pool.h"

namespace muselet::cpu {

// Which experts the rows of a step go to. Grown to the largest step, then kept.
class ExpertRoutes {
 public:
  // A row that goes to an expert.
  struct Entry {
    uint32_t row = 0;
    float weight = 0.0F;
  };
  // One choice of a row.
  struct Choice {
    uint32_t expert = 0;
    float weight = 0.0F;
    uint32_t entry = 0;  // REQUIRES: the expert is held
  };

  // Routes every row of `scores` [M, experts]; entries are made for the experts that `held` marks.
  void Route(Rows scores, const RouterSpec& router, const std::vector<bool>& held);

  uint32_t entries() const { return static_cast<uint32_t>(entries_.size()); }
  // By expert, then by row.
  const Entry& entry(uint32_t index) const { return entries_[index]; }
  // Entries [begin(e), begin(e + 1)) are those of expert e.
  uint32_t begin(uint32_t expert) const { return begin_[expert]; }
  // Of one row, by expert.
  std::span<const Choice> choices(uint32_t row) const {
    return {choices_.data() + size_t{row} * active_, active_};
  }

 private:
  void Choose(const float* scores, const RouterSpec& router, Choice* choices);

  uint32_t active_ = 0;
  std::vector<Choice> choices_;  // [M, active]
  std::vector<Entry> entries_;
  std::vector<uint32_t> begin_;  // [experts + 1]
  std::vector<uint32_t> next_;   // [experts]
  std::vector<float> exp_;       // [experts] of one row
};

// Step thread only.
class ExpertFeedForward {
 public:
  // `int8`: quantised weights are multiplied with rounded inputs.
  ExpertFeedForward(const Kernels& kernels, ThreadPool& pool, bool int8)
      : kernels_(kernels), pool_(pool), int8_(int8) {}

  void Compute(Rows x, Rows scores, const RouterSpec& router, const ExpertScratch& scratch,
               std::span<const ExpertPart> parts);

 private:
  // A piece of one product.
  struct Piece {
    const PackedMatrix* weight = nullptr;
    float* out = nullptr;
    uint32_t panel_begin = 0, panel_end = 0;
    uint32_t row_begin = 0, row_end = 0;
  };

  bool UsesInt8(const Matrix& weight) const { return int8_ && IsQuantized(weight.dtype()); }
  void GatherInputs(Rows x, std::span<const ExpertPart> parts);
  void Activate(const ExpertScratch& scratch, uint32_t width, std::span<const ExpertPart> parts);
  void AddPieces(const Matrix* weight, float* out, uint32_t row_begin, uint32_t row_end);
  void Multiply(const float* x);
  void Combine(const ExpertPart& part, const float* down);

  const Kernels& kernels_;
  ThreadPool& pool_;
  const bool int8_;
  ExpertRoutes routes_;
  std::vector<bool> held_;
  std::vector<float> sorted_;  // inputs, by entry
  QuantizedBuffer buffer_;
  QuantizedRows quantized_;
  std::vector<Piece> pieces_;
};

}  // namespace muselet::cpu
