// Paged attention at SmolLM2-135M's shape (9 query heads, 3 key/value heads of 64, f16 cache):
// decode rows of several sequences at one depth, and a prefill chunk of one sequence.
#include <cstring>
#include <numeric>
#include <string>

#include "base/check.h"
#include "tests/bench/op_bench.h"

namespace muselet::bench {
namespace {

constexpr uint32_t kQueryHeads = 9, kKvHeads = 3, kHeadDim = 64, kBlockTokens = 16;

struct AttentionCase {
  const char* kind;
  uint32_t sequences;
  uint32_t rows;   // of each sequence
  uint32_t depth;  // positions that the last row of a sequence sees
};
constexpr AttentionCase kCases[] = {{"decode", 1, 1, 128},     {"decode", 1, 1, 1024},
                                    {"decode", 8, 1, 128},     {"decode", 8, 1, 1024},
                                    {"decode", 32, 1, 128},    {"decode", 32, 1, 1024},
                                    {"prefill", 1, 64, 64},    {"prefill", 1, 256, 256},
                                    {"prefill", 1, 256, 1024}, {"prefill", 1, 512, 2048}};

void Attention(::benchmark::State& state, const AttentionCase& measured, uint32_t threads) {
  Ops& device = Device(threads, ActivationFormat::kInt8);
  const KvShape shape{DType::kF16, kBlockTokens, kKvHeads, kHeadDim};
  const uint32_t blocks = (measured.depth + kBlockTokens - 1) / kBlockTokens;
  auto cache = device.Allocate(device.KvBlockBytes(shape) * blocks * measured.sequences);
  CHECK(cache.ok(), cache.status().message());
  // Pages that were never written would all be one page, which stays in the L1 cache.
  std::memset(cache->data(), 0x11, cache->size());
  std::vector<BlockId> tables(size_t{blocks} * measured.sequences);
  std::iota(tables.begin(), tables.end(), 0);
  std::vector<RowPlace> places;
  double seen = 0.0;
  for (uint32_t s = 0; s < measured.sequences; ++s) {
    for (uint32_t row = 0; row < measured.rows; ++row) {
      places.push_back({measured.depth - measured.rows + row, s * blocks});
      seen += places.back().position + 1;
    }
  }
  const auto rows = static_cast<uint32_t>(places.size());
  RandomRows q(rows, kQueryHeads * kHeadDim, 1), out(rows, kQueryHeads * kHeadDim, 2);
  const PagedKv kv{shape, cache->data()};
  const double start = Now();
  for (auto _ : state) {
    device.Attention(q.rows(), {places, tables}, kv, {kQueryHeads, 0, 0.125F}, out.rows());
    ::benchmark::ClobberMemory();
  }
  const double bytes =
      static_cast<double>(measured.sequences) * measured.depth * kKvHeads * kHeadDim * 2 * 2;
  Report(state, Now() - start, threads, bytes, 4.0 * seen * kQueryHeads * kHeadDim,
         Arithmetic::kFloat);
}

}  // namespace

void RegisterAttention(uint32_t threads) {
  for (const AttentionCase& measured : kCases) {
    const std::string name = std::string("attention/") + measured.kind +
                             "/rows:" + std::to_string(measured.sequences * measured.rows) +
                             "/depth:" + std::to_string(measured.depth) +
                             "/threads:" + std::to_string(threads);
    ::benchmark::RegisterBenchmark(name.c_str(), [measured, threads](::benchmark::State& state) {
      Attention(state, measured, threads);
    })->UseRealTime();
  }
}

}  // namespace muselet::bench
