// The inner loops of the CPU backend, one table a level of the instruction set. Every level gives
// the same bits: a test compares each entry with the scalar one, which is the plain statement of
// what is computed.
//
// Reduction layout "lanes8-v2":
//   - Products: one running fma over the columns of a segment in order, from zero (int8: two fma a
//     block of 32 columns, after an exact integer sum); segments are cut by SegmentCount
//     (node/model/shard_plan.h) and added by the pairwise tree of base/device/ops.h.
//   - Sums along a row (RMSNorm, softmax): element i goes to lane i % 8; lanes are added as
//     a[j] += a[j + 4]; a[j] += a[j + 2]; a[0] + a[1].
//   - Attention: a score is one running fma over the head's elements; chunks of kAttentionChunk
//     absolute positions, each with its own maximum and sum; values are one running fma over the
//     positions of a chunk; chunks are merged in order.
//   - exp: range reduction by ln 2 in two parts, Taylor polynomial of degree 7 (relative error
//     below 2e-7).
//
// This header is read by files that are compiled for one instruction set: plain data and
// declarations only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "node/cpu/panels.h"

namespace muselet::cpu {

inline constexpr uint32_t kAttentionChunk = 256;  // positions
inline constexpr uint32_t kKvBlockTokens = 16;
inline constexpr uint32_t kConvertedTokens = 64;  // keys or values held as floats for many rows
inline constexpr uint32_t kSegmentsMax = 64;
// A block whose largest magnitude is not above this is rounded to zeros: 127 / it could overflow.
inline constexpr float kQuantizeMin = 1e-30F;

// Activations rounded to int8 by blocks of 32; row i starts at i * blocks (* 32 for q).
struct QuantizedRows {
  int8_t* q = nullptr;
  float* scale = nullptr;    // max |x| / 127
  float* sum = nullptr;      // scale * total
  int32_t* total = nullptr;  // sum of q
  uint32_t blocks = 0;       // of a row
};

// Panels [panel_begin, panel_end) times rows [row_begin, row_end).
struct MatMulTile {
  PanelView weight;
  uint32_t panel_begin = 0;
  uint32_t panel_end = 0;
  uint32_t row_begin = 0;
  uint32_t row_end = 0;
  const float* x = nullptr;     // [rows, K], float kernels
  QuantizedRows quantized;      // int8 kernels
  const float* bias = nullptr;  // [N] or null
  float* out = nullptr;         // [rows, N]
  bool accumulate = false;      // out = out + product
};

// One key/value head's view of one layer's paged cache. Inside a block: keys [G][D][16 positions],
// then values [G][16 positions][D], in the cache's dtype. The transposed keys make 8 positions the
// 8 lanes of a score.
struct KvHeadView {
  const std::byte* blocks = nullptr;  // of the layer
  size_t block_bytes = 0;
  size_t key_offset = 0;    // of this head inside a block
  size_t value_offset = 0;  // of this head inside a block
  bool half = true;         // f16, otherwise f32
  uint32_t head_dim = 0;
};

// Positions [begin, end).
struct PositionRange {
  uint32_t begin = 0;
  uint32_t end = 0;
};

// What the calling thread reads next: a hint, nothing depends on it.
struct KeysAhead {
  const uint32_t* table = nullptr;  // null: nothing known
  PositionRange range;
  size_t key_offset = 0;
};

// The query heads that share a key/value head, for neighbouring rows of one sequence, over the
// positions of one chunk. A lane is one query head of one row: lane r * queries + i. What a lane
// gives does not depend on the other lanes.
struct AttentionChunk {
  KvHeadView kv;
  const uint32_t* table = nullptr;  // of the sequence: block of position p at table[p / 16]
  // [rows]: what each row sees of the chunk, never empty; begin and end never decrease from row to
  // row, and begin / kAttentionChunk == (end - 1) / kAttentionChunk, the same in all.
  const PositionRange* seen = nullptr;
  uint32_t rows = 0;
  uint32_t queries = 0;      // query heads of a row
  const float* q = nullptr;  // row r: [queries, D] at q + r * q_stride
  size_t q_stride = 0;
  float scale = 1.0F;
  float* scores = nullptr;     // scratch [lanes, kAttentionChunk]
  float* converted = nullptr;  // scratch [kConvertedTokens, D]
  float* maximum = nullptr;    // out [lanes]: largest score
  float* sum = nullptr;        // out [lanes]: sum of exp(score - maximum)
  float* values = nullptr;     // out [lanes, D]: sum of exp(score - maximum) * value
  KeysAhead ahead;
};

// Folds a chunk's (maximum, sum, values [D]) into a running one, of one query head.
struct AttentionMerge {
  float* maximum = nullptr;
  float* sum = nullptr;
  float* values = nullptr;
  float chunk_maximum = 0.0F;
  float chunk_sum = 0.0F;
  const float* chunk_values = nullptr;
  uint32_t head_dim = 0;
};

struct KvWriteHead {
  std::byte* keys = nullptr;    // of the block and head: [D][16]
  std::byte* values = nullptr;  // of the block and head: [16][D]
  uint32_t slot = 0;            // position % 16
  bool half = true;
  uint32_t head_dim = 0;
  const float* k = nullptr;  // [D]
  const float* v = nullptr;  // [D]
};

struct Kernels {
  void (*matmul_float)(const MatMulTile& tile);
  // REQUIRES: a block format.
  void (*matmul_int8)(const MatMulTile& tile);
  // Rounds x [blocks * 32] into row `row` of `out`.
  void (*quantize_row)(const float* x, uint32_t row, const QuantizedRows& out);
  void (*rms_norm_row)(const float* x, const float* weight, float eps, uint32_t width, float* out);
  void (*silu_mul)(const float* gate, const float* up, size_t count, float* out);
  void (*attention_chunk)(const AttentionChunk& chunk);
  void (*attention_merge)(const AttentionMerge& merge);
  void (*kv_write)(const KvWriteHead& head);
  // GeluMul, SigmoidMul and SoftCap of base/device/ops.h.
  void (*gelu_mul)(const float* gate, const float* up, size_t count, float* out);
  void (*sigmoid_mul)(const float* gate, const float* x, size_t count, float* out);
  void (*soft_cap)(const float* x, float cap, size_t count, float* out);
};

// 2 * sqrt(2 / pi), the factor of the tanh form of GELU.
inline constexpr float kGeluFactor = 1.59576912F;
inline constexpr float kGeluCubic = 0.044715F;

// exp as the layout states it, for what has no kernel of its own.
float ScalarExp(float x);

const Kernels& ScalarKernels();
// Needs AVX2, FMA and F16C; null in a build for another processor family.
const Kernels* Avx2Kernels();
// Needs AVX-512 F, BW, VL and VNNI besides; null likewise.
const Kernels* Avx512Kernels();

}  // namespace muselet::cpu
