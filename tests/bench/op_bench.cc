// Single operations of the CPU backend at SmolLM2-135M's shapes, with the share of this machine's
// limits that each reaches. Run:  op_bench [--benchmark_filter=REGEX] [...]
#include "tests/bench/op_bench.h"

#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "base/check.h"
#include "node/cpu/cpu_ops.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::bench {

const MachineLimits& Limits(uint32_t threads) {
  static std::map<uint32_t, MachineLimits> limits;
  const auto found = limits.find(threads);
  if (found != limits.end()) return found->second;
  return limits.emplace(threads, MeasureMachine(threads)).first->second;
}

Ops& Device(uint32_t threads, ActivationFormat activations) {
  static std::map<std::pair<uint32_t, ActivationFormat>, std::unique_ptr<Ops>> devices;
  std::unique_ptr<Ops>& device = devices[{threads, activations}];
  if (device == nullptr) {
    CpuOptions options;
    options.threads = threads;
    options.activations = activations;
    auto made = cpu::MakeCpuOps(options);
    CHECK(made.ok(), made.status().message());
    device = std::move(made).value();
  }
  return *device;
}

RandomRows::RandomRows(uint32_t count_in, uint32_t width_in, uint32_t seed)
    : values(testing::RandomFloats(size_t{count_in} * width_in, seed)),
      count(count_in),
      width(width_in) {}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Report(::benchmark::State& state, double elapsed_s, uint32_t threads, double bytes,
            double operations, Arithmetic arithmetic) {
  const MachineLimits& limits = Limits(threads);
  const double iterations_per_s = static_cast<double>(state.iterations()) / elapsed_s;
  state.counters["GB/s"] = bytes * iterations_per_s * 1e-9;
  state.counters["%read"] = 100.0 * bytes * iterations_per_s / limits.read_bytes_per_s;
  if (arithmetic == Arithmetic::kOther) return;
  const bool int8 = arithmetic == Arithmetic::kInt8;
  const double limit = int8 ? limits.int8_ops : limits.f32_flops;
  state.counters[int8 ? "GOP/s" : "GFLOP/s"] = operations * iterations_per_s * 1e-9;
  state.counters[int8 ? "%int8" : "%f32"] = 100.0 * operations * iterations_per_s / limit;
}

}  // namespace muselet::bench

int main(int argc, char** argv) {
  using muselet::bench::Limits;
  // Several hundred benchmarks: short ones, unless the command line says otherwise.
  std::vector<char*> arguments(argv, argv + argc);
  std::string min_time = "--benchmark_min_time=0.05";
  arguments.insert(arguments.begin() + 1, min_time.data());
  argc = static_cast<int>(arguments.size());
  argv = arguments.data();
  ::benchmark::Initialize(&argc, argv);
  if (::benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  for (const uint32_t threads : std::set<uint32_t>{1, std::thread::hardware_concurrency()}) {
    const auto& limits = Limits(threads);
    std::fprintf(stderr, "%u thread%s: reads %.1f GB/s, f32 %.1f GFLOP/s, int8 %.1f GOP/s\n",
                 threads, threads == 1 ? "" : "s", limits.read_bytes_per_s * 1e-9,
                 limits.f32_flops * 1e-9, limits.int8_ops * 1e-9);
    muselet::bench::RegisterMatMul(threads);
    muselet::bench::RegisterAttention(threads);
    muselet::bench::RegisterRows(threads);
  }
  muselet::bench::RegisterSampling();
  ::benchmark::RunSpecifiedBenchmarks();
  return 0;
}
