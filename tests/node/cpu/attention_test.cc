// Attention: one chunk of positions at every level, and whole steps whose rows are computed
// together against the same rows alone, bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>

#include "node/cpu/cpu_ops.h"
#include "node/cpu/isa.h"
#include "node/cpu/kernels.h"
#include "node/cpu/paged_attention.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::cpu {
namespace {

using testing::RandomFloats;
using testing::SameBits;

// The levels that can run here, the plain one first.
std::vector<IsaLevel> Levels() {
  std::vector<IsaLevel> levels = {IsaLevel::kScalar};
  for (const IsaLevel level : {IsaLevel::kAvx2, IsaLevel::kAvx512})
    if (SelectKernels(level).ok()) levels.push_back(level);
  return levels;
}

const Kernels& KernelsOf(IsaLevel level) {
  return **SelectKernels(level);
}

// A cache of one head with random contents, its blocks out of order.
struct HeadCache {
  HeadCache(const Kernels& kernels, uint32_t positions, uint32_t head_dim, bool half)
      : k(RandomFloats(size_t{positions} * head_dim, 7)),
        v(RandomFloats(size_t{positions} * head_dim, 8)) {
    const uint32_t blocks = (positions + kKvBlockTokens - 1) / kKvBlockTokens;
    const size_t side = size_t{kKvBlockTokens} * head_dim * (half ? 2 : 4);
    bytes.resize(blocks * 2 * side);
    for (uint32_t b = 0; b < blocks; ++b) table.push_back((b * 7 + 3) % blocks);
    if (blocks % 7 == 0)
      for (uint32_t b = 0; b < blocks; ++b) table[b] = blocks - 1 - b;
    view = {bytes.data(), 2 * side, 0, side, half, head_dim};
    for (uint32_t p = 0; p < positions; ++p) {
      std::byte* block = bytes.data() + table[p / kKvBlockTokens] * 2 * side;
      kernels.kv_write({block, block + side, p % kKvBlockTokens, half, head_dim,
                        k.data() + size_t{p} * head_dim, v.data() + size_t{p} * head_dim});
    }
  }
  std::vector<float> k, v;
  std::vector<std::byte> bytes;
  std::vector<uint32_t> table;
  KvHeadView view;
};

struct ChunkResult {
  std::vector<float> maximum, sum, values;

  void Append(const ChunkResult& more) {
    maximum.insert(maximum.end(), more.maximum.begin(), more.maximum.end());
    sum.insert(sum.end(), more.sum.begin(), more.sum.end());
    values.insert(values.end(), more.values.begin(), more.values.end());
  }
  bool operator==(const ChunkResult& other) const {
    return SameBits(maximum, other.maximum) && SameBits(sum, other.sum) &&
           SameBits(values, other.values);
  }
};

// q: [rows, queries, D].
ChunkResult Attend(const Kernels& kernels, const HeadCache& cache,
                   const std::vector<PositionRange>& seen, uint32_t queries, const float* q) {
  const auto rows = static_cast<uint32_t>(seen.size());
  const size_t lanes = size_t{rows} * queries, row_floats = size_t{queries} * cache.view.head_dim;
  ChunkResult out = {std::vector<float>(lanes), std::vector<float>(lanes),
                     std::vector<float>(rows * row_floats)};
  std::vector<float> scores(lanes * kAttentionChunk, NAN);
  std::vector<float> converted(size_t{kConvertedTokens} * cache.view.head_dim, NAN);
  // A hint that points at the cache's own first positions.
  const KeysAhead ahead = {cache.table.data(), {0, 40}, cache.view.key_offset};
  kernels.attention_chunk({cache.view, cache.table.data(), seen.data(), rows, queries, q,
                           row_floats, 0.125F, scores.data(), converted.data(), out.maximum.data(),
                           out.sum.data(), out.values.data(), ahead});
  return out;
}

TEST(AttentionKernelTest, MatchesDoubles) {
  constexpr uint32_t kHeadDim = 64;
  const HeadCache cache(ScalarKernels(), 100, kHeadDim, false);
  const auto q = RandomFloats(kHeadDim, 9);
  const ChunkResult out = Attend(ScalarKernels(), cache, {{3, 100}}, 1, q.data());
  std::vector<double> expected(kHeadDim, 0.0);
  double total = 0.0;
  for (uint32_t p = 3; p < 100; ++p) {
    double score = 0.0;
    for (uint32_t d = 0; d < kHeadDim; ++d)
      score += static_cast<double>(q[d]) * cache.k[p * kHeadDim + d];
    const double weight = std::exp(score * 0.125);
    total += weight;
    for (uint32_t d = 0; d < kHeadDim; ++d) expected[d] += weight * cache.v[p * kHeadDim + d];
  }
  for (uint32_t d = 0; d < kHeadDim; ++d)
    EXPECT_NEAR(out.values[d] / out.sum[0], expected[d] / total, 1e-5);
}

TEST(AttentionKernelTest, LevelsAgreeForOneRow) {
  for (const bool half : {true, false}) {
    for (const uint32_t head_dim : {8U, 12U, 24U, 64U, 128U}) {
      const HeadCache plain(ScalarKernels(), 600, head_dim, half);
      for (const IsaLevel level : Levels()) {
        const HeadCache cache(KernelsOf(level), 600, head_dim, half);
        ASSERT_EQ(cache.bytes, plain.bytes);
        for (const uint32_t queries : {1U, 2U, 3U, 4U, 5U, 7U, 9U}) {
          const auto q = RandomFloats(size_t{queries} * head_dim, 11);
          for (const PositionRange seen : std::vector<PositionRange>{
                   {0, 1}, {0, 8}, {0, 17}, {5, 31}, {0, 256}, {256, 257}, {300, 512}, {512, 599}})
            EXPECT_EQ(Attend(ScalarKernels(), cache, {seen}, queries, q.data()),
                      Attend(KernelsOf(level), cache, {seen}, queries, q.data()))
                << IsaName(level) << " half " << half << " D " << head_dim << " queries " << queries
                << " positions " << seen.begin << ".." << seen.end;
        }
      }
    }
  }
}

// Rows of consecutive positions, with windows shorter and longer than the step, against the plain
// kernel on each row alone.
TEST(AttentionKernelTest, RowsTogetherGiveWhatEachGivesAlone) {
  struct Shape {
    bool half;
    uint32_t head_dim, queries;
  };
  for (const auto& [half, head_dim, queries] : std::vector<Shape>{{true, 64, 3},
                                                                  {false, 64, 2},
                                                                  {true, 12, 2},
                                                                  {true, 24, 1},
                                                                  {false, 8, 7},
                                                                  {true, 128, 4}}) {
    const HeadCache cache(ScalarKernels(), 512, head_dim, half);
    const size_t row_floats = size_t{queries} * head_dim;
    const auto q = RandomFloats(32 * row_floats, 11);
    for (const uint32_t position : {0U, 21U, 223U, 479U}) {
      for (const uint32_t window : {0U, 1U, 9U, 70U}) {
        std::vector<PositionRange> seen;
        ChunkResult alone;
        for (uint32_t row = 0; row < 32; ++row) {
          const uint32_t end = position + row + 1;
          const uint32_t chunk = position / kAttentionChunk * kAttentionChunk;
          seen.push_back({std::max(chunk, window > 0 && end > window ? end - window : 0), end});
          alone.Append(
              Attend(ScalarKernels(), cache, {seen.back()}, queries, q.data() + row * row_floats));
          const uint32_t rows = row + 1;
          if (rows > 8 && rows % 8 != 0) continue;
          for (const IsaLevel level : Levels())
            ASSERT_EQ(alone, Attend(KernelsOf(level), cache, seen, queries, q.data()))
                << IsaName(level) << " half " << half << " D " << head_dim << " queries " << queries
                << " rows " << rows << " at " << position << " window " << window;
        }
      }
    }
  }
}

TEST(AttentionKernelTest, MergeLevelsAgree) {
  for (const IsaLevel level : Levels()) {
    for (const float chunk_maximum : {-3.0F, 1.5F, 200.0F}) {
      std::vector<float> a = RandomFloats(64, 1), b = a;
      const auto chunk = RandomFloats(64, 2);
      float maximum[2] = {1.25F, 1.25F}, sum[2] = {3.5F, 3.5F};
      ScalarKernels().attention_merge(
          {&maximum[0], &sum[0], a.data(), chunk_maximum, 2.0F, chunk.data(), 64});
      KernelsOf(level).attention_merge(
          {&maximum[1], &sum[1], b.data(), chunk_maximum, 2.0F, chunk.data(), 64});
      EXPECT_TRUE(SameBits(a, b));
      EXPECT_EQ(maximum[0], maximum[1]);
      EXPECT_EQ(sum[0], sum[1]);
    }
  }
}

// A run of rows of one sequence in a step.
struct Slice {
  uint32_t sequence, position, rows;
};

struct StepShape {
  DType dtype;
  uint32_t kv_heads, queries, head_dim, window;
};

// Sequences with full caches; steps over them.
class AttentionStep {
 public:
  static constexpr uint32_t kSequences = 3, kPositions = 560;

  explicit AttentionStep(const StepShape& shape)
      : shape_(shape), kv_{shape.dtype, kKvBlockTokens, shape.kv_heads, shape.head_dim} {
    constexpr uint32_t kBlocks = (kPositions + kKvBlockTokens - 1) / kKvBlockTokens;
    const auto ops = Make(IsaLevel::kScalar, 1);
    bytes_.resize(size_t{kSequences} * kBlocks * ops->KvBlockBytes(kv_));
    for (uint32_t i = 0; i < kSequences * kBlocks; ++i)
      tables_.push_back((i * 37 + 5) % (kSequences * kBlocks));  // 37 is prime to their number
    for (uint32_t s = 0; s < kSequences; ++s) {
      std::vector<RowPlace> places;
      for (uint32_t p = 0; p < kPositions; ++p) places.push_back({p, s * kBlocks});
      const uint32_t width = shape.kv_heads * shape.head_dim;
      auto k = RandomFloats(size_t{kPositions} * width, 20 + s);
      auto v = RandomFloats(k.size(), 30 + s);
      // Nothing before the last position may feel it.
      std::fill_n(v.end() - width, width, INFINITY);
      ops->KvWrite({k.data(), kPositions, width}, {v.data(), kPositions, width}, {places, tables_},
                   {kv_, bytes_.data()});
      q_.push_back(RandomFloats(
          size_t{kPositions} * shape.kv_heads * shape.queries * shape.head_dim, 40 + s));
    }
  }

  static std::unique_ptr<Ops> Make(IsaLevel level, uint32_t threads) {
    return std::move(MakeCpuOps({ActivationFormat::kFloat32, threads, level})).value();
  }

  std::vector<float> Run(Ops& ops, const std::vector<Slice>& slices) {
    const uint32_t heads = shape_.kv_heads * shape_.queries, width = heads * shape_.head_dim;
    constexpr uint32_t kBlocks = (kPositions + kKvBlockTokens - 1) / kKvBlockTokens;
    std::vector<RowPlace> places;
    std::vector<float> q;
    for (const Slice& slice : slices) {
      for (uint32_t p = slice.position; p < slice.position + slice.rows; ++p) {
        places.push_back({p, slice.sequence * kBlocks});
        const auto at = q_[slice.sequence].begin() + static_cast<ptrdiff_t>(size_t{p} * width);
        q.insert(q.end(), at, at + width);
      }
    }
    std::vector<float> out(q.size());
    const auto rows = static_cast<uint32_t>(places.size());
    ops.Attention({q.data(), rows, width}, {places, tables_}, {kv_, bytes_.data()},
                  {heads, shape_.window, 0.125F}, {out.data(), rows, width});
    return out;
  }

  // Each row in a step of its own, with the plain kernels on one thread.
  std::vector<float> RunAlone(const std::vector<Slice>& slices) {
    const auto ops = Make(IsaLevel::kScalar, 1);
    std::vector<float> out;
    for (const Slice& slice : slices) {
      for (uint32_t i = 0; i < slice.rows; ++i) {
        const auto row = Run(*ops, {{slice.sequence, slice.position + i, 1}});
        out.insert(out.end(), row.begin(), row.end());
      }
    }
    return out;
  }

 private:
  const StepShape shape_;
  const KvShape kv_;
  std::vector<std::byte> bytes_;
  std::vector<BlockId> tables_;
  std::vector<std::vector<float>> q_;
};

// Ragged chunks of several sequences, starting inside blocks, crossing chunk boundaries, between
// decode rows; the same sequence again later in the step.
TEST(PagedAttentionTest, RowsOfAStepGiveWhatEachGivesAlone) {
  const std::vector<std::vector<Slice>> steps = {
      {{0, 0, 1}},
      {{0, 559, 1}},
      {{0, 557, 3}},
      {{0, 250, 64}},
      {{0, 0, 2}, {1, 13, 3}, {2, 511, 5}, {0, 254, 7}},
      {{1, 496, 64}, {0, 40, 1}, {2, 255, 1}, {2, 256, 1}, {0, 500, 5}, {0, 505, 2}},
      {{0, 3, 1}, {1, 3, 1}, {2, 3, 1}, {0, 4, 1}, {0, 6, 1}, {0, 5, 1}}};
  const std::vector<StepShape> shapes = {{DType::kF16, 2, 3, 64, 0},  {DType::kF16, 1, 3, 64, 300},
                                         {DType::kF32, 2, 1, 16, 0},  {DType::kF32, 1, 2, 24, 20},
                                         {DType::kF16, 2, 4, 128, 0}, {DType::kF16, 1, 8, 40, 1},
                                         {DType::kF16, 1, 9, 32, 257}};
  for (const StepShape& shape : shapes) {
    AttentionStep step(shape);
    for (size_t i = 0; i < steps.size(); ++i) {
      const std::vector<float> alone = step.RunAlone(steps[i]);
      for (const IsaLevel level : Levels()) {
        for (const uint32_t threads : {1U, 3U}) {
          if (level == IsaLevel::kScalar && threads == 1) continue;  // what `alone` ran with
          const auto ops = AttentionStep::Make(level, threads);
          ASSERT_TRUE(SameBits(alone, step.Run(*ops, steps[i])))
              << IsaName(level) << ", " << threads << " threads, step " << i << ", "
              << shape.queries << " queries of " << shape.head_dim << ", window " << shape.window;
        }
      }
    }
  }
}

// One object over steps of any size: what a large step left in its memory does not show.
TEST(PagedAttentionTest, AStepDoesNotSeeTheOneBefore) {
  AttentionStep step({DType::kF16, 3, 3, 64, 0});
  const auto ops = AttentionStep::Make(IsaLevel::kAuto, 2);
  const std::vector<Slice> small = {{1, 300, 3}}, large = {{0, 0, 400}, {2, 551, 9}};
  const std::vector<float> first = step.Run(*ops, small);
  step.Run(*ops, large);
  EXPECT_TRUE(SameBits(first, step.Run(*ops, small)));
}

// Chunks of many rows at a far position would need more memory than a model's weights.
TEST(PagedAttentionTest, FarPositionsOfManyRowsNeedLittleMemory) {
  constexpr uint32_t kRows = 64, kQueries = 8, kHeadDim = 16, kBegin = 130'000;
  constexpr uint32_t kWidth = kQueries * kHeadDim, kBlocks = 5;
  const KvShape shape = {DType::kF32, kKvBlockTokens, 1, kHeadDim};
  const auto kernels = SelectKernels(IsaLevel::kAuto);
  ASSERT_TRUE(kernels.ok());
  auto floats = RandomFloats(size_t{kBlocks} * kKvBlockTokens * kHeadDim * 2, 3);
  auto q = RandomFloats(size_t{kRows} * kWidth, 4);
  // The keys and values are those of a few blocks, again and again.
  std::vector<BlockId> table((kBegin + kRows) / kKvBlockTokens + 1);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<BlockId>(i % kBlocks);
  const auto run = [&](PagedAttention& attention, ThreadPool& pool, uint32_t row, uint32_t count) {
    std::vector<RowPlace> places;
    for (uint32_t i = row; i < row + count; ++i) places.push_back({kBegin + i, 0});
    std::vector<float> out(size_t{count} * kWidth);
    attention.Attend(**kernels, pool, {q.data() + size_t{row} * kWidth, count, kWidth},
                     {places, table}, {shape, reinterpret_cast<std::byte*>(floats.data())},
                     {kQueries, 0, 0.25F}, {out.data(), count, kWidth});
    return out;
  };
  ThreadPool pool(8);
  PagedAttention attention;
  const std::vector<float> together = run(attention, pool, 0, kRows);
  EXPECT_LT(attention.scratch_bytes(), kPartialBytesMax + (2 << 20));
  for (const uint32_t row : {0U, 31U, kRows - 1}) {
    const auto at = together.begin() + static_cast<ptrdiff_t>(row * kWidth);
    EXPECT_TRUE(SameBits({at, at + kWidth}, run(attention, pool, row, 1))) << row;
  }
}

}  // namespace
}  // namespace muselet::cpu
