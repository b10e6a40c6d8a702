// A weight matrix in panels (panels.h): repacking, and reading single rows back.
#pragma once

#include <functional>
#include <memory>

#include "base/device/ops.h"
#include "node/cpu/panels.h"
#include "node/cpu/thread_pool.h"
#include "node/cpu/weight_arena.h"

namespace muselet::cpu {

// One row's 32 columns of a block format, as integers and scales:
//   x[i] = d * q[i] + m, or (d * scale[i / 16]) * q[i] (Q6_K). Q4_K and Q5_K: d and m are those of
//   the group; all their products are exact.
struct RowBlock {
  float d = 0.0F;
  float m = 0.0F;
  int32_t scale[2] = {1, 1};
  int8_t q[kBlockColumns] = {};
};

// Immutable after Pack; any thread may read.
class PackedMatrix final : public Matrix {
 public:
  // kInvalidArgument if the tensor is not [N, K] of a known dtype with whole blocks, or if
  // `segments` does not cut it into equal multiples of 32 (of 8 in a plain format). The panels lie
  // in `arena`, which lives as long as one of its matrices.
  static Result<std::unique_ptr<PackedMatrix>> Pack(
      const TensorView& weight, uint32_t segments, ThreadPool& pool,
      std::shared_ptr<WeightArena> arena = std::make_shared<WeightArena>());
  // The same of some columns; in a block format they begin and end at multiples of 32.
  static Result<std::unique_ptr<PackedMatrix>> PackColumns(const TensorView& weight,
                                                           ColumnRange columns, uint32_t segments,
                                                           ThreadPool& pool,
                                                           std::shared_ptr<WeightArena> arena);

  uint32_t rows() const override { return view_.rows; }
  uint32_t columns() const override { return view_.columns; }
  DType dtype() const override { return view_.dtype; }
  size_t bytes() const override { return panel_count() * view_.panel_bytes; }

  const PanelView& view() const { return view_; }
  uint32_t panel_count() const { return (view_.rows + kPanelRows - 1) / kPanelRows; }

 private:
  PanelView view_;
  std::shared_ptr<WeightArena> arena_;
};

// What PackedMatrix::bytes() will be.
size_t PackedBytes(DType dtype, uint64_t rows, uint32_t columns);

// Row `row` as f32 [K]: the bits that dequantising the original tensor gives.
void ReadRow(const PanelView& panels, uint32_t row, float* out);

// Block `block` of row `row`. REQUIRES: a block format.
RowBlock ReadRowBlock(const PanelView& panels, uint32_t row, uint32_t block);

}  // namespace muselet::cpu
