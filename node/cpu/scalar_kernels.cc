// The kernels as plain loops: what every other level must reproduce bit for bit, and what runs on a
// processor without AVX2. The eight lanes are arrays of eight.
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "base/device/dequantize.h"
#include "node/cpu/half.h"
#include "node/cpu/kernels.h"
#include "node/cpu/packed_matrix.h"

namespace muselet::cpu {

float ScalarExp(float x) {
  x = std::min(std::max(x, -87.0F), 88.0F);
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = std::fma(x, 0x1.715476p+0F, kRound) - kRound;
  float r = std::fma(n, -0x1.62e4p-1F, x);
  r = std::fma(n, -0x1.7f7d1cp-20F, r);
  float p = 1.0F / 5040.0F;
  for (const float c : {1.0F / 720.0F, 1.0F / 120.0F, 1.0F / 24.0F, 1.0F / 6.0F, 0.5F, 1.0F, 1.0F})
    p = std::fma(p, r, c);
  const auto exponent = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  return p * std::bit_cast<float>(exponent);
}

namespace {

float Exp(float x) {
  return ScalarExp(x);
}

float AddLanes(const float (&lanes)[8]) {
  float a[4];
  for (int j = 0; j < 4; ++j) a[j] = lanes[j] + lanes[j + 4];
  return (a[0] + a[2]) + (a[1] + a[3]);
}

// The pairwise tree over partial sums that arrive in order.
class PartialSums {
 public:
  void Add(float partial) {
    for (uint32_t bit = count_++; (bit & 1U) != 0; bit >>= 1) partial = stack_[--depth_] + partial;
    stack_[depth_++] = partial;
  }
  float Total() const {
    float total = stack_[depth_ - 1];
    for (uint32_t i = depth_ - 1; i > 0; --i) total = stack_[i - 1] + total;
    return total;
  }

 private:
  float stack_[8] = {};
  uint32_t depth_ = 0;
  uint32_t count_ = 0;
};

// Calls dot(row, n) for every output of the tile and stores the result, plus the bias, plus what is
// there if the tile accumulates.
template <typename Dot>
void ForEachOutput(const MatMulTile& tile, uint32_t n, const Dot& dot) {
  for (uint32_t row = tile.row_begin; row < tile.row_end; ++row) {
    float value = dot(row);
    if (tile.bias != nullptr) value += tile.bias[n];
    float& out = tile.out[static_cast<size_t>(row) * tile.weight.rows + n];
    out = tile.accumulate ? out + value : value;
  }
}

void MatMulFloat(const MatMulTile& tile) {
  const PanelView& weight = tile.weight;
  const uint32_t width = weight.columns / weight.segments;
  std::vector<float> w(weight.columns);
  const uint32_t end = std::min(tile.panel_end * kPanelRows, weight.rows);
  for (uint32_t n = tile.panel_begin * kPanelRows; n < end; ++n) {
    ReadRow(weight, n, w.data());
    ForEachOutput(tile, n, [&](uint32_t row) {
      const float* x = tile.x + static_cast<size_t>(row) * weight.columns;
      PartialSums sums;
      for (uint32_t begin = 0; begin < weight.columns; begin += width) {
        float sum = 0.0F;
        for (uint32_t k = begin; k < begin + width; ++k) sum = std::fma(x[k], w[k], sum);
        sums.Add(sum);
      }
      return sums.Total();
    });
  }
}

int32_t BlockDot(const RowBlock& w, const int8_t* q) {
  int32_t part[2] = {0, 0};
  for (uint32_t i = 0; i < kBlockColumns; ++i)
    part[i / 16] += static_cast<int32_t>(w.q[i]) * static_cast<int32_t>(q[i]);
  return part[0] * w.scale[0] + part[1] * w.scale[1];
}

void MatMulInt8(const MatMulTile& tile) {
  const PanelView& weight = tile.weight;
  const QuantizedRows& x = tile.quantized;
  const uint32_t width = x.blocks / weight.segments;
  const bool has_minimum = HasMinimum(weight.dtype);
  std::vector<RowBlock> w(x.blocks);
  const uint32_t end = std::min(tile.panel_end * kPanelRows, weight.rows);
  for (uint32_t n = tile.panel_begin * kPanelRows; n < end; ++n) {
    for (uint32_t b = 0; b < x.blocks; ++b) w[b] = ReadRowBlock(weight, n, b);
    ForEachOutput(tile, n, [&](uint32_t row) {
      PartialSums sums;
      for (uint32_t begin = 0; begin < x.blocks; begin += width) {
        float sum = 0.0F;
        for (uint32_t b = begin; b < begin + width; ++b) {
          const size_t at = static_cast<size_t>(row) * x.blocks + b;
          const auto dot = static_cast<float>(BlockDot(w[b], x.q + at * kBlockColumns));
          sum = std::fma(dot * x.scale[at], w[b].d, sum);
          if (has_minimum) sum = std::fma(x.sum[at], w[b].m, sum);
        }
        sums.Add(sum);
      }
      return sums.Total();
    });
  }
}

void QuantizeRow(const float* x, uint32_t row, const QuantizedRows& out) {
  for (uint32_t b = 0; b < out.blocks; ++b, x += kBlockColumns) {
    const size_t at = static_cast<size_t>(row) * out.blocks + b;
    float largest = 0.0F;
    for (uint32_t i = 0; i < kBlockColumns; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float inverse = largest > kQuantizeMin ? 127.0F / largest : 0.0F;
    int32_t total = 0;
    for (uint32_t i = 0; i < kBlockColumns; ++i) {
      const auto q = static_cast<int32_t>(std::nearbyint(x[i] * inverse));
      out.q[at * kBlockColumns + i] = static_cast<int8_t>(q);
      total += q;
    }
    out.scale[at] = largest / 127.0F;
    out.total[at] = total;
    out.sum[at] = out.scale[at] * static_cast<float>(total);
  }
}

void RmsNormRow(const float* x, const float* weight, float eps, uint32_t width, float* out) {
  float lanes[8] = {};
  for (uint32_t i = 0; i < width; ++i) lanes[i % 8] = std::fma(x[i], x[i], lanes[i % 8]);
  const float mean = AddLanes(lanes) / static_cast<float>(width);
  const float scale = 1.0F / std::sqrt(mean + eps);
  for (uint32_t i = 0; i < width; ++i) out[i] = (x[i] * scale) * weight[i];
}

void SiluMul(const float* gate, const float* up, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) out[i] = gate[i] / (1.0F + Exp(-gate[i])) * up[i];
}

void GeluMul(const float* gate, const float* up, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) {
    const float x = gate[i];
    const float u = x * std::fma(x * x, kGeluCubic, 1.0F);
    out[i] = x / (1.0F + Exp(u * -kGeluFactor)) * up[i];
  }
}

void SigmoidMul(const float* gate, const float* x, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) out[i] = x[i] / (1.0F + Exp(-gate[i]));
}

// tanh(y) = 1 - 2 / (exp(2 y) + 1).
void SoftCap(const float* x, float cap, size_t count, float* out) {
  const float twice = 2.0F / cap, height = 2.0F * cap;
  for (size_t i = 0; i < count; ++i) out[i] = cap - height / (Exp(x[i] * twice) + 1.0F);
}

float CacheElement(const std::byte* at, bool half, size_t index) {
  if (half) return HalfToFloat(reinterpret_cast<const uint16_t*>(at)[index]);
  return reinterpret_cast<const float*>(at)[index];
}

void AttendLane(const AttentionChunk& chunk, uint32_t row, uint32_t query) {
  const KvHeadView& kv = chunk.kv;
  const auto [begin, end] = chunk.seen[row];
  const size_t lane = static_cast<size_t>(row) * chunk.queries + query;
  const float* q = chunk.q + row * chunk.q_stride + static_cast<size_t>(query) * kv.head_dim;
  float* scores = chunk.scores + lane * kAttentionChunk;
  float* values = chunk.values + lane * kv.head_dim;
  const auto block_of = [&](uint32_t position) {
    return kv.blocks + chunk.table[position / kKvBlockTokens] * kv.block_bytes;
  };
  float maximum = -INFINITY;
  for (uint32_t p = begin; p < end; ++p) {
    const std::byte* keys = block_of(p) + kv.key_offset;
    float dot = 0.0F;
    for (uint32_t d = 0; d < kv.head_dim; ++d)
      dot =
          std::fma(q[d], CacheElement(keys, kv.half, d * kKvBlockTokens + p % kKvBlockTokens), dot);
    scores[p % kAttentionChunk] = dot * chunk.scale;
    maximum = std::max(maximum, scores[p % kAttentionChunk]);
  }
  float lanes[8] = {};
  std::fill_n(values, kv.head_dim, 0.0F);
  for (uint32_t p = begin; p < end; ++p) {
    const float weight = Exp(scores[p % kAttentionChunk] - maximum);
    lanes[p % 8] += weight;
    const std::byte* row = block_of(p) + kv.value_offset;
    for (uint32_t d = 0; d < kv.head_dim; ++d) {
      const size_t index = static_cast<size_t>(p % kKvBlockTokens) * kv.head_dim + d;
      values[d] = std::fma(weight, CacheElement(row, kv.half, index), values[d]);
    }
  }
  chunk.maximum[lane] = maximum;
  chunk.sum[lane] = AddLanes(lanes);
}

void AttendChunk(const AttentionChunk& chunk) {
  for (uint32_t row = 0; row < chunk.rows; ++row)
    for (uint32_t query = 0; query < chunk.queries; ++query) AttendLane(chunk, row, query);
}

void MergeChunk(const AttentionMerge& merge) {
  const float maximum = std::max(*merge.maximum, merge.chunk_maximum);
  const float keep = Exp(*merge.maximum - maximum);
  const float take = Exp(merge.chunk_maximum - maximum);
  *merge.maximum = maximum;
  *merge.sum = std::fma(*merge.sum, keep, merge.chunk_sum * take);
  for (uint32_t d = 0; d < merge.head_dim; ++d)
    merge.values[d] = std::fma(merge.values[d], keep, merge.chunk_values[d] * take);
}

void KvWriteOne(const KvWriteHead& head) {
  for (uint32_t d = 0; d < head.head_dim; ++d) {
    const size_t key = static_cast<size_t>(d) * kKvBlockTokens + head.slot;
    const size_t value = static_cast<size_t>(head.slot) * head.head_dim + d;
    if (head.half) {
      reinterpret_cast<uint16_t*>(head.keys)[key] = FloatToHalf(head.k[d]);
      reinterpret_cast<uint16_t*>(head.values)[value] = FloatToHalf(head.v[d]);
    } else {
      reinterpret_cast<float*>(head.keys)[key] = head.k[d];
      reinterpret_cast<float*>(head.values)[value] = head.v[d];
    }
  }
}

constexpr Kernels kScalar = {MatMulFloat, MatMulInt8, QuantizeRow, RmsNormRow, SiluMul, AttendChunk,
                             MergeChunk,  KvWriteOne, GeluMul,     SigmoidMul, SoftCap};

}  // namespace

const Kernels& ScalarKernels() {
  return kScalar;
}

}  // namespace muselet::cpu
