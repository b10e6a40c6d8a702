#include "tests/bench/machine_limits.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace muselet::bench {
namespace {

constexpr int kRuns = 5;
constexpr size_t kReadBytes = 256U << 20;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of several runs: `work` a second, where all threads together do `work` by one call each.
double BestRate(uint32_t threads, double work, const std::function<void(uint32_t)>& body) {
  double best = 0.0;
  for (int run = 0; run < kRuns; ++run) {
    const double start = Now();
    std::vector<std::thread> workers;
    for (uint32_t t = 1; t < threads; ++t) workers.emplace_back([&body, t] { body(t); });
    body(0);
    for (std::thread& worker : workers) worker.join();
    best = std::max(best, work / (Now() - start));
  }
  return best;
}

#if defined(__x86_64__)
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

__attribute__((target("avx2"))) uint64_t SumAvx2(const uint64_t* data, size_t count) {
  __m256i sum[8] = {};
  for (size_t i = 0; i + 32 <= count; i += 32)
    for (size_t lane = 0; lane < 8; ++lane)
      sum[lane] = _mm256_add_epi64(
          sum[lane], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + i + 4 * lane)));
  for (size_t lane = 1; lane < 8; ++lane) sum[0] = _mm256_add_epi64(sum[0], sum[lane]);
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sum[0]);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

constexpr double kFmaFlops = 12 * 16;
__attribute__((target("avx2,fma"))) void FmaAvx2(uint64_t rounds) {
  __m256 sum[12];
  for (auto& lane : sum) lane = _mm256_set1_ps(1.0F);
  const __m256 a = _mm256_set1_ps(0.999F), b = _mm256_set1_ps(0.001F);
  for (uint64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (auto& lane : sum) {
      lane = _mm256_fmadd_ps(lane, a, b);
      asm volatile("" : "+x"(lane));
    }
  }
}

constexpr double kInt8Ops = 8 * 64;
__attribute__((target("avx2"))) void Int8Avx2(uint64_t rounds) {
  __m256i sum[8] = {};
  __m256i weights = _mm256_set1_epi8(7);
  const __m256i activations = _mm256_set1_epi8(-5), ones = _mm256_set1_epi16(1);
  for (uint64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 8
    for (auto& lane : sum) {
      asm volatile("" : "+x"(weights));  // or the product would be taken out of the loop
      const __m256i pairs = _mm256_maddubs_epi16(weights, activations);
      lane = _mm256_add_epi32(lane, _mm256_madd_epi16(pairs, ones));
    }
  }
  for (auto& lane : sum) asm volatile("" : "+x"(lane));
}
#endif

uint64_t SumScalar(const uint64_t* data, size_t count) {
  uint64_t sum[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8)
    for (size_t lane = 0; lane < 8; ++lane) sum[lane] += data[i + lane];
  uint64_t total = 0;
  for (const uint64_t lane : sum) total += lane;
  return total;
}

constexpr double kScalarOps = 8 * 2;
volatile float float_sink = 0.0F;
void FmaScalar(uint64_t rounds) {
  float sum[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (uint64_t round = 0; round < rounds; ++round)
    for (float& lane : sum) lane = std::fma(lane, 0.999F, 0.001F);
  for (const float lane : sum) float_sink = lane;
}

}  // namespace

double MeasureReadBandwidth(uint32_t threads) {
  std::vector<uint64_t> data(kReadBytes / sizeof(uint64_t), 1);
  const size_t share = data.size() / threads;
  std::vector<uint64_t> sums(size_t{threads} * 16);
  auto sum = SumScalar;
#if defined(__x86_64__)
  if (HasAvx2()) sum = SumAvx2;
#endif
  return BestRate(threads, static_cast<double>(share * threads * sizeof(uint64_t)),
                  [&](uint32_t t) { sums[size_t{t} * 16] = sum(data.data() + share * t, share); });
}

MachineLimits MeasureMachine(uint32_t threads) {
  MachineLimits limits;
  limits.threads = threads;
  limits.read_bytes_per_s = MeasureReadBandwidth(threads);
#if defined(__x86_64__)
  if (HasAvx2()) {
    constexpr uint64_t kRounds = 10'000'000;
    const double work = static_cast<double>(kRounds) * threads;
    limits.f32_flops = BestRate(threads, work * kFmaFlops, [](uint32_t) { FmaAvx2(kRounds); });
    limits.int8_ops = BestRate(threads, work * kInt8Ops, [](uint32_t) { Int8Avx2(kRounds); });
    return limits;
  }
#endif
  constexpr uint64_t kRounds = 3'000'000;
  limits.f32_flops = BestRate(threads, static_cast<double>(kRounds) * threads * kScalarOps,
                              [](uint32_t) { FmaScalar(kRounds); });
  limits.int8_ops = limits.f32_flops;
  return limits;
}

}  // namespace muselet::bench
