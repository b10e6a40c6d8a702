// The ops of the CPU backend as a whole: any number of rows, any number of threads.
#include "node/cpu/cpu_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "node/cpu/kernels.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::cpu {
namespace {

using testing::kMatrixDTypes;
using testing::RandomFloats;
using testing::RandomTensor;
using testing::SameBits;

std::unique_ptr<Ops> Make(ActivationFormat activations, uint32_t threads = 2) {
  auto ops = MakeCpuOps({activations, threads, IsaLevel::kAuto});
  CHECK(ops.ok(), ops.status().message());
  return std::move(ops).value();
}

// A copy of rows [begin, begin + count) of x.
std::vector<float> Part(const std::vector<float>& x, uint32_t width, uint32_t begin,
                        uint32_t count) {
  const auto first = x.begin() + static_cast<ptrdiff_t>(size_t{begin} * width);
  return {first, first + static_cast<ptrdiff_t>(size_t{count} * width)};
}

// Row i of a product of 130 rows equals the row computed in any company.
TEST(CpuOpsTest, ProductsDoNotDependOnTheNumberOfRows) {
  constexpr uint32_t kRows = 130, kOutputs = 41, kColumns = 256;
  auto x = RandomFloats(size_t{kRows} * kColumns, 1);
  for (const auto activations : {ActivationFormat::kInt8, ActivationFormat::kFloat32}) {
    const auto ops = Make(activations);
    for (const DType dtype : kMatrixDTypes) {
      const RandomTensor weight(dtype, kOutputs, kColumns, 2);
      const auto matrix = ops->Prepare(weight.view, 2);
      ASSERT_TRUE(matrix.ok());
      const auto multiply = [&](std::vector<float> input, uint32_t rows) {
        std::vector<float> out(size_t{rows} * kOutputs);
        const MatMulTarget target = {matrix->get(), nullptr, {out.data(), rows, kOutputs}};
        ops->MatMul({input.data(), rows, kColumns}, {&target, 1});
        return out;
      };
      const std::vector<float> all = multiply(x, kRows);
      for (uint32_t begin = 0, rows = 1; begin + rows <= kRows; begin += rows, ++rows)
        EXPECT_TRUE(SameBits(Part(all, kOutputs, begin, rows),
                             multiply(Part(x, kColumns, begin, rows), rows)))
            << Traits(dtype).name << ", rows " << begin << " to " << begin + rows;
    }
  }
}

// Several targets of one input, of different formats and sizes, give what each gives alone.
TEST(CpuOpsTest, ProductsOfOneInputAreIndependent) {
  const auto ops = Make(ActivationFormat::kInt8, 3);
  auto x = RandomFloats(5 * 256, 1);
  const auto bias = RandomFloats(70, 3);
  std::vector<std::unique_ptr<Matrix>> matrices;
  std::vector<std::vector<float>> together, alone;
  std::vector<MatMulTarget> targets;
  for (const auto& [dtype, outputs] : std::vector<std::pair<DType, uint32_t>>{
           {DType::kQ4_1, 70}, {DType::kF16, 3}, {DType::kQ6_K, 64}, {DType::kQ8_0, 17}}) {
    const RandomTensor weight(dtype, outputs, 256, outputs);
    matrices.push_back(std::move(ops->Prepare(weight.view, 1)).value());
    together.emplace_back(size_t{5} * outputs, NAN);
    alone.emplace_back(size_t{5} * outputs, NAN);
  }
  for (size_t i = 0; i < matrices.size(); ++i) {
    const uint32_t outputs = matrices[i]->rows();
    const float* added = i == 0 ? bias.data() : nullptr;
    targets.push_back({matrices[i].get(), added, {together[i].data(), 5, outputs}});
    const MatMulTarget single = {matrices[i].get(), added, {alone[i].data(), 5, outputs}};
    ops->MatMul({x.data(), 5, 256}, {&single, 1});
  }
  ops->MatMul({x.data(), 5, 256}, targets);
  for (size_t i = 0; i < matrices.size(); ++i) EXPECT_TRUE(SameBits(together[i], alone[i])) << i;
}

// The sum over two segments is the sum of what each half gives alone: what two ranks would add.
TEST(CpuOpsTest, SegmentsAddUpLikeShards) {
  constexpr uint32_t kOutputs = 24, kColumns = 256, kRows = 3;
  for (const auto activations : {ActivationFormat::kInt8, ActivationFormat::kFloat32}) {
    const auto ops = Make(activations);
    const RandomTensor weight(DType::kQ4_0, kOutputs, kColumns, 2);
    auto x = RandomFloats(size_t{kRows} * kColumns, 1);
    const auto multiply = [&](const TensorView& view, uint32_t segments, std::vector<float> in) {
      const auto matrix = std::move(ops->Prepare(view, segments)).value();
      std::vector<float> out(kRows * kOutputs);
      const MatMulTarget target = {matrix.get(), nullptr, {out.data(), kRows, kOutputs}};
      ops->MatMul({in.data(), kRows, matrix->columns()}, {&target, 1});
      return out;
    };
    const std::vector<float> whole = multiply(weight.view, 4, x);
    std::vector<float> halves[2];
    for (uint32_t half = 0; half < 2; ++half) {
      RandomTensor shard(DType::kQ4_0, kOutputs, kColumns / 2, 3);
      std::vector<float> part;
      const size_t row_bytes = shard.bytes.size() / kOutputs;
      for (uint32_t n = 0; n < kOutputs; ++n)
        std::memcpy(shard.bytes.data() + n * row_bytes,
                    weight.bytes.data() + (2 * n + half) * row_bytes, row_bytes);
      for (uint32_t m = 0; m < kRows; ++m)
        part.insert(part.end(), x.begin() + m * kColumns + half * kColumns / 2,
                    x.begin() + m * kColumns + (half + 1) * kColumns / 2);
      halves[half] = multiply(shard.view, 2, part);
    }
    for (size_t i = 0; i < whole.size(); ++i) ASSERT_EQ(whole[i], halves[0][i] + halves[1][i]);
  }
}

TEST(CpuOpsTest, RowOpsDoNotDependOnTheNumberOfRows) {
  constexpr uint32_t kRows = 70, kWidth = 260;
  const auto ops = Make(ActivationFormat::kInt8, 3);
  const auto weight = RandomFloats(kWidth, 2), y = RandomFloats(size_t{kRows} * kWidth, 3);
  const auto x = RandomFloats(size_t{kRows} * kWidth, 1);
  const auto compute = [&](std::vector<float> a, std::vector<float> b) {
    const auto rows = static_cast<uint32_t>(a.size() / kWidth);
    const Rows first = {a.data(), rows, kWidth}, second = {b.data(), rows, kWidth};
    ops->RmsNorm(first, weight.data(), 1e-5F, first);
    ops->SiluMul(first, second, second);
    ops->Add(first, second, first);
    return a;
  };
  const std::vector<float> all = compute(x, y);
  for (uint32_t row = 0; row < kRows; ++row)
    ASSERT_TRUE(SameBits(Part(all, kWidth, row, 1),
                         compute(Part(x, kWidth, row, 1), Part(y, kWidth, row, 1))));
}

// The fused phases against the plain ops they stand for (Ops' own defaults), bit for bit.
TEST(CpuOpsTest, FusedPhasesGiveThePlainBits) {
  constexpr uint32_t kRows = 37, kWidth = 256, kOutputs = 41;
  for (const auto activations : {ActivationFormat::kInt8, ActivationFormat::kFloat32}) {
    const auto ops = Make(activations);
    const RandomTensor tensors[] = {{DType::kQ4_1, kOutputs, kWidth, 2},
                                    {DType::kF16, kOutputs, kWidth, 3}};
    std::unique_ptr<Matrix> matrices[2];
    for (int i = 0; i < 2; ++i) matrices[i] = ops->Prepare(tensors[i].view, 2).value();
    const auto weight = RandomFloats(kWidth, 4);
    using Phase = std::function<void(Rows, Rows, Rows, std::span<const MatMulTarget>)>;
    const auto run = [&](const Phase& phase) {
      auto x = RandomFloats(size_t{kRows} * kWidth, 5), y = RandomFloats(x.size(), 6);
      std::vector<float> scratch(x.size()), out(size_t{2} * kRows * kOutputs, 0.5F);
      const Rows outs[] = {{out.data(), kRows, kOutputs},
                           {out.data() + size_t{kRows} * kOutputs, kRows, kOutputs}};
      const MatMulTarget targets[] = {{matrices[0].get(), nullptr, outs[0], true},
                                      {matrices[1].get(), nullptr, outs[1]}};
      phase({x.data(), kRows, kWidth}, {y.data(), kRows, kWidth}, {scratch.data(), kRows, kWidth},
            targets);
      return out;
    };
    EXPECT_TRUE(SameBits(run([&](Rows x, Rows, Rows scratch, auto targets) {
                           ops->NormMatMul(x, weight.data(), 1e-5F, scratch, targets);
                         }),
                         run([&](Rows x, Rows, Rows scratch, auto targets) {
                           ops->Ops::NormMatMul(x, weight.data(), 1e-5F, scratch, targets);
                         })));
    EXPECT_TRUE(SameBits(
        run([&](Rows x, Rows y, Rows, auto targets) { ops->SiluMatMul(x, y, targets); }),
        run([&](Rows x, Rows y, Rows, auto targets) { ops->Ops::SiluMatMul(x, y, targets); })));
  }
}

TEST(CpuOpsTest, FusedRopeAndCacheWriteGivesThePlainBits) {
  constexpr uint32_t kRows = 40, kHeadDim = 16, kQueryHeads = 12, kKvHeads = 4;
  const auto ops = Make(ActivationFormat::kInt8);
  const KvShape shape = {DType::kF16, cpu::kKvBlockTokens, kKvHeads, kHeadDim};
  const auto cosine = RandomFloats(size_t{kRows} * kHeadDim / 2, 1);
  const auto sine = RandomFloats(cosine.size(), 2);
  const RopeRows angles = {cosine.data(), sine.data(), kHeadDim, false};
  const std::vector<BlockId> tables = {2, 0, 1};
  std::vector<RowPlace> places(kRows);
  for (uint32_t row = 0; row < kRows; ++row) places[row] = {row, 0};
  const auto run = [&](bool fused) {
    auto q = RandomFloats(size_t{kRows} * kQueryHeads * kHeadDim, 3);
    auto k = RandomFloats(size_t{kRows} * kKvHeads * kHeadDim, 4);
    auto v = RandomFloats(k.size(), 5);
    std::vector<std::byte> blocks(3 * ops->KvBlockBytes(shape));
    const Rows rows[] = {{q.data(), kRows, kQueryHeads * kHeadDim},
                         {k.data(), kRows, kKvHeads * kHeadDim},
                         {v.data(), kRows, kKvHeads * kHeadDim}};
    const StepRows step = {places, tables};
    const PagedKv cache = {shape, blocks.data()};
    if (fused) {
      ops->RopeKvWrite(rows[0], rows[1], rows[2], angles, step, cache);
    } else {
      ops->Ops::RopeKvWrite(rows[0], rows[1], rows[2], angles, step, cache);
    }
    return std::make_pair(q, blocks);
  };
  const auto plain = run(false), fused = run(true);
  EXPECT_TRUE(SameBits(plain.first, fused.first));
  EXPECT_EQ(plain.second, fused.second);
}

TEST(CpuOpsTest, RotatesPairsInBothLayouts) {
  const auto ops = Make(ActivationFormat::kInt8);
  const float cosine[2] = {0.6F, 0.0F}, sine[2] = {0.8F, 1.0F};
  std::vector<float> halves = {1, 2, 3, 4, 9}, pairs = halves;
  ops->Rope({halves.data(), 1, 5}, 5, {cosine, sine, 4, false});
  ops->Rope({pairs.data(), 1, 5}, 5, {cosine, sine, 4, true});
  const float expected_halves[] = {1 * 0.6F - 3 * 0.8F, -4, 3 * 0.6F + 1 * 0.8F, 2, 9};
  const float expected_pairs[] = {1 * 0.6F - 2 * 0.8F, 2 * 0.6F + 1 * 0.8F, -4, 3, 9};
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_FLOAT_EQ(halves[i], expected_halves[i]);
    EXPECT_FLOAT_EQ(pairs[i], expected_pairs[i]);
  }
}

TEST(CpuOpsTest, GathersDequantisedRows) {
  const auto ops = Make(ActivationFormat::kInt8);
  const RandomTensor table(DType::kF32, 11, 32, 1);
  const auto matrix = std::move(ops->Prepare(table.view, 1)).value();
  const TokenId ids[] = {10, 0, 7};
  std::vector<float> out(3 * 32);
  ops->Gather(*matrix, ids, {out.data(), 3, 32});
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ(0, std::memcmp(out.data() + i * 32, table.bytes.data() + ids[i] * 128, 128));
}

// Attention of one row over a cache, against doubles, with and without a window, over several
// chunks of positions.
TEST(CpuOpsTest, AttentionMatchesDoubles) {
  constexpr uint32_t kPositions = 600, kHeads = 4, kKvHeads = 2, kHeadDim = 16;
  const auto ops = Make(ActivationFormat::kFloat32);
  const KvShape shape = {DType::kF32, 16, kKvHeads, kHeadDim};
  constexpr uint32_t kBlocks = (kPositions + 15) / 16;
  const auto buffer = std::move(ops->Allocate(kBlocks * ops->KvBlockBytes(shape))).value();
  const PagedKv cache = {shape, buffer.data()};
  std::vector<BlockId> table(kBlocks);
  std::vector<RowPlace> places(kPositions);
  for (uint32_t b = 0; b < kBlocks; ++b) table[b] = kBlocks - 1 - b;
  for (uint32_t p = 0; p < kPositions; ++p) places[p].position = p;
  auto k = RandomFloats(size_t{kPositions} * kKvHeads * kHeadDim, 1);
  auto v = RandomFloats(k.size(), 2);
  auto q = RandomFloats(size_t{kPositions} * kHeads * kHeadDim, 3);
  ops->KvWrite({k.data(), kPositions, kKvHeads * kHeadDim}, {v.data(), kPositions, 32},
               {places, table}, cache);
  for (const uint32_t window : {0U, 40U, 300U}) {
    std::vector<float> out(q.size());
    ops->Attention({q.data(), kPositions, kHeads * kHeadDim}, {places, table}, cache,
                   {kHeads, window, 0.25F}, {out.data(), kPositions, kHeads * kHeadDim});
    for (const uint32_t row : {0U, 39U, 40U, 255U, 256U, 599U}) {
      for (uint32_t head = 0; head < kHeads; ++head) {
        const float* query = q.data() + (size_t{row} * kHeads + head) * kHeadDim;
        const uint32_t first = window > 0 && row + 1 > window ? row + 1 - window : 0;
        double total = 0.0, values[kHeadDim] = {};
        for (uint32_t p = first; p <= row; ++p) {
          const size_t at = (size_t{p} * kKvHeads + head / 2) * kHeadDim;
          double score = 0.0;
          for (uint32_t d = 0; d < kHeadDim; ++d) score += double{query[d]} * k[at + d];
          const double weight = std::exp(score * 0.25);
          total += weight;
          for (uint32_t d = 0; d < kHeadDim; ++d) values[d] += weight * v[at + d];
        }
        for (uint32_t d = 0; d < kHeadDim; ++d)
          ASSERT_NEAR(out[(size_t{row} * kHeads + head) * kHeadDim + d], values[d] / total, 1e-5);
      }
    }
  }
}

TEST(CpuOpsTest, ForcedLevelsThatCannotRunAreRefused) {
  const auto ops = MakeCpuOps({ActivationFormat::kInt8, 1, IsaLevel::kAvx512});
  EXPECT_EQ(ops.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(ops.status().message().find("cpu.isa"), std::string::npos);
  EXPECT_TRUE(MakeCpuOps({ActivationFormat::kInt8, 1, IsaLevel::kScalar}).ok());
}

}  // namespace
}  // namespace muselet::cpu
