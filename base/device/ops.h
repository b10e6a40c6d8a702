// The operations a decoder is made of, each once: formula, shapes, dtypes, aliasing. This is the
// contract that every backend fulfils; architectures (node/model) are written over it.
//
// Rules for every op and every backend that calls itself strict:
//   - Row invariance: row i of a result depends on row i of the inputs (and on the sequence's KV)
//     only, bit for bit, whatever the number of rows and whatever stands in the other rows.
//   - Shard invariance: a product's sum over columns is cut at the matrix's segment ends; each
//     segment is summed from zero, and the partial sums are added by one pairwise tree:
//     ((s0 + s1) + (s2 + s3)) + ..., an odd last one joining at the next level. A rank that holds
//     whole segments can therefore give the very bits of the whole.
//
// Matrices of activations are f32, row-major, dense, in device memory. Inputs and outputs do not
// overlap unless an op says so. Shapes that do not fit are broken invariants (CHECK): they follow
// from the model, which was checked when it was loaded. One thread at a time calls an Ops object.
//
// Letters: M rows of the step, N outputs, K inputs, H query heads, G key/value heads, D head size,
// V vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/device/buffer.h"
#include "base/device/tensor.h"
#include "base/status.h"
#include "base/types.h"

namespace muselet {

// A view of f32 rows in device memory: [count, width].
struct Rows {
  float* data = nullptr;
  uint32_t count = 0;
  uint32_t width = 0;

  float* row(uint32_t index) const { return data + static_cast<size_t>(index) * width; }
};

// A weight matrix [N, K] in the form that a backend multiplies fastest. Dequantises to the bits of
// the tensor it was made from. Immutable.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual uint32_t rows() const = 0;     // N
  virtual uint32_t columns() const = 0;  // K
  virtual DType dtype() const = 0;       // of the tensor it was made from
  virtual size_t bytes() const = 0;      // of device memory
};

// One product of a MatMul: p[m, n] = sum over k of x[m, k] * weight[n, k], + bias[n] if there is
// one; out = p, or out = out + p where it accumulates (onto a residual).
struct MatMulTarget {
  const Matrix* weight = nullptr;
  const float* bias = nullptr;  // [N] or null
  Rows out;                     // [M, N]
  bool accumulate = false;
};

// Columns [begin, begin + count) of a matrix.
struct ColumnRange {
  uint32_t begin = 0;
  uint32_t count = 0;
};

// One of the partial sums of a product, from the ranks that hold its columns: laid on a stack in
// the order of the columns, then the two topmost entries are added `additions` times. The whole is
// on the stack after the last; which of them are added spells the tree of shard invariance.
struct PartialSum {
  const float* rows = nullptr;  // [M, N]
  uint8_t additions = 0;
};

// The stack of a PartialSum is never deeper.
inline constexpr uint32_t kPartialSumsDepth = 8;

// Where a row of the step stands in its sequence: position p lies in block
// tables[table_begin + p / block_tokens], at p % block_tokens.
struct RowPlace {
  uint32_t position = 0;
  uint32_t table_begin = 0;
};

struct StepRows {
  std::span<const RowPlace> places;  // [M]
  std::span<const BlockId> tables;
};

// What one layer keeps for a token.
struct KvShape {
  DType dtype = DType::kF16;  // kF16 or kF32
  uint32_t block_tokens = 16;
  uint32_t kv_heads = 0;  // G
  uint32_t head_dim = 0;  // D
};

// The key/value blocks of one layer. How a block is laid out inside is the backend's affair.
struct PagedKv {
  KvShape shape;
  std::byte* blocks = nullptr;  // block b starts at blocks + b * KvBlockBytes(shape)
};

// The rotation of each row: element i of a row turns by an angle with this cosine and sine.
struct RopeRows {
  const float* cosine = nullptr;  // [M, rotary_dim / 2]
  const float* sine = nullptr;    // [M, rotary_dim / 2]
  uint32_t rotary_dim = 0;        // even, <= D; the rest of a head passes unchanged
  bool interleaved = false;       // pairs (2i, 2i + 1), otherwise (i, i + rotary_dim / 2)
};

struct AttentionSpec {
  uint32_t query_heads = 0;    // H, a multiple of G; query head h reads key/value head h / (H / G)
  uint32_t window_tokens = 0;  // a row sees itself and the window_tokens - 1 before it; 0 = all
  float scale = 1.0F;
};

// A router's rule: of the softmax of a row's scores over all experts, the `active` largest are
// chosen (of equal ones the lower expert) and are the weights, divided by their sum if
// `renormalised`.
struct RouterSpec {
  uint32_t experts = 0;
  uint32_t active = 0;
  bool renormalised = true;
};

// One expert: silu(gate x) * (up x), then down.
struct ExpertWeights {
  const Matrix* gate = nullptr;  // [F, K]
  const Matrix* up = nullptr;    // [F, K]
  const Matrix* down = nullptr;  // [N, F]
};

// Experts [begin, begin + experts.size()) in `groups` equal runs. A row's sum over the experts of a
// run, in expert order, is one partial sum, from zero; those of the runs are added by the pairwise
// tree, so that a rank that holds whole runs can give the very bits of the whole.
struct ExpertPart {
  uint32_t begin = 0;
  std::span<const ExpertWeights> experts;
  uint32_t groups = 1;
  Rows out;  // [M, N]
  bool accumulate = false;
};

// Memory that experts work in, for M rows that go to `active` experts each.
struct ExpertScratch {
  float* gate = nullptr;  // [M * active, F]
  float* up = nullptr;    // [M * active, F]
  float* down = nullptr;  // [M * active, N]
};

class Ops {
 public:
  virtual ~Ops() = default;

  // Backend, reduction layout and activation format, as they enter a numerics id, e.g.
  // "cpu/lanes8-v2" and "int8".
  virtual std::string LayoutName() const = 0;
  virtual std::string ActivationName() const = 0;

  // Zeroed device memory; pages that are never touched cost nothing. kResourceExhausted if there is
  // none.
  virtual Result<DeviceBuffer> Allocate(size_t bytes) = 0;

  // Makes a Matrix of a tensor [N, K]. `segments` cuts K into that many equal parts for shard
  // invariance; if segments > 1, K / segments is a multiple of 32 for a quantised format, of 8 for
  // a plain one. The tensor's bytes are not needed afterwards. kInvalidArgument for a dtype or
  // shape that cannot be multiplied, kResourceExhausted.
  virtual Result<std::unique_ptr<Matrix>> Prepare(const TensorView& weight, uint32_t segments) = 0;
  // The same of some columns, which are then K; in a quantised format they begin and end at
  // multiples of 32. Only their bytes are read.
  virtual Result<std::unique_ptr<Matrix>> PrepareColumns(const TensorView& weight,
                                                         ColumnRange columns,
                                                         uint32_t segments) = 0;
  // A Matrix for Gather alone, which takes rows from the tensor's own bytes where it can: they must
  // stay as long as it does.
  virtual Result<std::unique_ptr<Matrix>> PrepareTable(const TensorView& table) = 0;
  // Makes f32 values [n] of a vector of any dtype, in device memory.
  virtual Result<DeviceBuffer> PrepareVector(const TensorView& vector) = 0;

  // out[m] = table[ids[m]], dequantised. ids in [0, V).
  virtual void Gather(const Matrix& table, std::span<const TokenId> ids, Rows out) = 0;

  // out[m, i] = (x[m, i] * (1 / sqrt(mean of x[m]^2 + eps))) * weight[i]. out may be x.
  virtual void RmsNorm(Rows x, const float* weight, float eps, Rows out) = 0;

  // Several products of one input. With int8 activations, the inputs of quantised weights are first
  // rounded: a block of 32 values to int8 with scale = max |x| / 127.
  virtual void MatMul(Rows x, std::span<const MatMulTarget> targets) = 0;

  // Turns each head of x [M, heads * head_dim] in place:
  // (a, b) -> (a cos - b sin, b cos + a sin).
  virtual void Rope(Rows x, uint32_t head_dim, const RopeRows& angles) = 0;

  // Stores the rows of k and v [M, G * D], rounded to the cache's dtype, at their places.
  virtual void KvWrite(Rows k, Rows v, const StepRows& rows, const PagedKv& cache) = 0;

  // out[m, h] = sum over p of softmax_p(scale * q[m, h] . key[p]) value[p], over the positions p
  // that row m sees, its own included: they must have been written. q, out: [M, H * D]. The softmax
  // is computed in chunks cut at fixed absolute positions, merged in order.
  virtual void Attention(Rows q, const StepRows& rows, const PagedKv& cache,
                         const AttentionSpec& spec, Rows out) = 0;

  // out = gate / (1 + exp(-gate)) * up. out may be gate or up.
  virtual void SiluMul(Rows gate, Rows up, Rows out) = 0;

  // The same with the tanh form of GELU instead: gate * s(2 * sqrt(2 / pi) * (gate + 0.044715
  // gate^3)) * up, s(u) = 1 / (1 + exp(-u)).
  virtual void GeluMul(Rows gate, Rows up, Rows out) = 0;

  // out = x / (1 + exp(-gate)). out may be gate or x.
  virtual void SigmoidMul(Rows gate, Rows x, Rows out) = 0;

  // out = cap * tanh(x / cap). out may be x.
  virtual void SoftCap(Rows x, float cap, Rows out) = 0;

  // out = x * factor. out may be x.
  virtual void Scale(Rows x, float factor, Rows out) = 0;

  // out = 0.
  virtual void Clear(Rows out) = 0;

  // The feed-forward part of a layer with experts: routes the rows of x by their scores [M,
  // experts] and computes every part; rows that go to one expert are computed together. x is none
  // of the outputs.
  virtual void ExpertFeedForward(Rows x, Rows scores, const RouterSpec& router,
                                 const ExpertScratch& scratch,
                                 std::span<const ExpertPart> parts) = 0;

  // out = x + y. out may be x or y.
  virtual void Add(Rows x, Rows y, Rows out) = 0;

  // out = out + (sum of the parts + bias), the parts added as PartialSum says; bias [N] or null.
  virtual void AddPartials(std::span<const PartialSum> parts, const float* bias, Rows out) = 0;

  // out[i] = x[rows[i]].
  virtual void SelectRows(Rows x, std::span<const uint32_t> rows, Rows out) = 0;

  // Fused phases: what a layer does between two passes over weights or cache. Each gives the bits
  // of the plain ops it stands for, which are what it does here; backends override them with fewer
  // passes.

  // RmsNorm of x into normed, then MatMul of normed. What normed holds afterwards is unspecified.
  virtual void NormMatMul(Rows x, const float* weight, float eps, Rows normed,
                          std::span<const MatMulTarget> targets) {
    RmsNorm(x, weight, eps, normed);
    MatMul(normed, targets);
  }
  // Rope of q and k, then KvWrite of k and v.
  virtual void RopeKvWrite(Rows q, Rows k, Rows v, const RopeRows& angles, const StepRows& rows,
                           const PagedKv& cache) {
    Rope(q, cache.shape.head_dim, angles);
    Rope(k, cache.shape.head_dim, angles);
    KvWrite(k, v, rows, cache);
  }
  // SiluMul of gate and up into gate, then MatMul of gate. What gate holds afterwards is
  // unspecified.
  virtual void SiluMatMul(Rows gate, Rows up, std::span<const MatMulTarget> targets) {
    SiluMul(gate, up, gate);
    MatMul(gate, targets);
  }

  // Bytes of one block of one layer, keys and values.
  virtual size_t KvBlockBytes(const KvShape& shape) const = 0;
};

}  // namespace muselet
