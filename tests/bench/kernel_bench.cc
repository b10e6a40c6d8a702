// Kernels alone, on one thread: products per format and number of rows, attention, the row kernels.
// Run:  kernel_bench --benchmark_filter=int8
#include <benchmark/benchmark.h>

#include <vector>

#include "node/cpu/isa.h"
#include "node/cpu/packed_matrix.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::cpu {
namespace {

const Kernels& BestKernels() {
  return **SelectKernels(IsaLevel::kAuto);
}

struct Input {
  explicit Input(uint32_t rows, uint32_t width)
      : x(testing::RandomFloats(size_t{rows} * width, 1)),
        q(x.size()),
        scale(x.size() / 32),
        sum(x.size() / 32),
        total(x.size() / 32),
        quantized{q.data(), scale.data(), sum.data(), total.data(), width / 32} {
    for (uint32_t row = 0; row < rows; ++row)
      BestKernels().quantize_row(x.data() + size_t{row} * width, row, quantized);
  }
  std::vector<float> x;
  std::vector<int8_t> q;
  std::vector<float> scale, sum;
  std::vector<int32_t> total;
  QuantizedRows quantized;
};

// A [1536, 768] matrix: larger than the L1 cache, within L2.
void MatMul(benchmark::State& state, DType dtype, bool int8) {
  constexpr uint32_t kOutputs = 1536, kColumns = 768;
  const auto rows = static_cast<uint32_t>(state.range(0));
  ThreadPool pool(1);
  const testing::RandomTensor weight(dtype, kOutputs, kColumns, 1);
  const auto packed = PackedMatrix::Pack(weight.view, 1, pool);
  Input input(rows, kColumns);
  std::vector<float> out(size_t{rows} * kOutputs);
  MatMulTile tile;
  tile.weight = (*packed)->view();
  tile.panel_end = kOutputs / kPanelRows;
  tile.row_end = rows;
  tile.x = input.x.data();
  tile.quantized = input.quantized;
  tile.out = out.data();
  for (auto _ : state) {
    (int8 ? BestKernels().matmul_int8 : BestKernels().matmul_float)(tile);
    benchmark::ClobberMemory();
  }
  const double products = static_cast<double>(kOutputs) * kColumns * rows;
  state.counters["MAC/s"] =
      benchmark::Counter(products, benchmark::Counter::kIsIterationInvariantRate);
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>((*packed)->bytes()));
}

void Attention(benchmark::State& state) {
  constexpr uint32_t kHeadDim = 64, kQueries = 3;
  const auto positions = static_cast<uint32_t>(state.range(0));
  const size_t side = size_t{kKvBlockTokens} * kHeadDim * 2;
  std::vector<std::byte> cache(positions / kKvBlockTokens * 2 * side);
  std::vector<uint32_t> table(positions / kKvBlockTokens);
  for (uint32_t i = 0; i < table.size(); ++i) table[i] = i;
  const auto q = testing::RandomFloats(size_t{kQueries} * kHeadDim, 1);
  std::vector<float> scores(size_t{kQueries} * kAttentionChunk), values(q.size());
  float maximum[kQueries], sum[kQueries];
  for (auto _ : state) {
    for (uint32_t begin = 0; begin < positions; begin += kAttentionChunk)
      BestKernels().attention_chunk({{cache.data(), 2 * side, 0, side, true, kHeadDim},
                                     table.data(),
                                     begin,
                                     begin + kAttentionChunk,
                                     kQueries,
                                     q.data(),
                                     0.125F,
                                     scores.data(),
                                     maximum,
                                     sum,
                                     values.data()});
    benchmark::ClobberMemory();
  }
  const double products = 2.0 * positions * kQueries * kHeadDim;
  state.counters["MAC/s"] =
      benchmark::Counter(products, benchmark::Counter::kIsIterationInvariantRate);
}

void QuantizeRow(benchmark::State& state) {
  Input input(1, 1536);
  for (auto _ : state) {
    BestKernels().quantize_row(input.x.data(), 0, input.quantized);
    benchmark::ClobberMemory();
  }
}

void SiluMul(benchmark::State& state) {
  Input input(2, 1536);
  std::vector<float> out(1536);
  for (auto _ : state) {
    BestKernels().silu_mul(input.x.data(), input.x.data() + 1536, 1536, out.data());
    benchmark::ClobberMemory();
  }
}

BENCHMARK_CAPTURE(MatMul, q4_1_int8, DType::kQ4_1, true)->Arg(1)->Arg(4)->Arg(32);
BENCHMARK_CAPTURE(MatMul, q4_0_int8, DType::kQ4_0, true)->Arg(1)->Arg(4)->Arg(32);
BENCHMARK_CAPTURE(MatMul, q8_0_int8, DType::kQ8_0, true)->Arg(1)->Arg(4)->Arg(32);
BENCHMARK_CAPTURE(MatMul, q6_k_int8, DType::kQ6_K, true)->Arg(1)->Arg(4)->Arg(32);
BENCHMARK_CAPTURE(MatMul, q4_1_float, DType::kQ4_1, false)->Arg(1)->Arg(4)->Arg(32);
BENCHMARK_CAPTURE(MatMul, f16_float, DType::kF16, false)->Arg(1)->Arg(4)->Arg(32);
BENCHMARK_CAPTURE(MatMul, f32_float, DType::kF32, false)->Arg(1)->Arg(4)->Arg(32);
BENCHMARK(Attention)->Arg(256)->Arg(2048);
BENCHMARK(QuantizeRow);
BENCHMARK(SiluMul);

}  // namespace
}  // namespace muselet::cpu
