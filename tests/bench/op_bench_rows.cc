// The row operations between the products: norm, activation, addition, and rounding to int8.
#include <string>

#include "base/check.h"
#include "node/cpu/isa.h"
#include "tests/bench/op_bench.h"

namespace muselet::bench {
namespace {

constexpr uint32_t kHidden = 576, kFfn = 1536;
constexpr uint32_t kRowCounts[] = {1, 8, 32, 128};

void Norm(::benchmark::State& state, uint32_t rows, uint32_t threads) {
  Ops& device = Device(threads, ActivationFormat::kInt8);
  RandomRows x(rows, kHidden, 1), weight(1, kHidden, 2), out(rows, kHidden, 3);
  const double start = Now();
  for (auto _ : state) {
    device.RmsNorm(x.rows(), weight.values.data(), 1e-5F, out.rows());
    ::benchmark::ClobberMemory();
  }
  const double elements = static_cast<double>(rows) * kHidden;
  Report(state, Now() - start, threads, 8 * elements, 4 * elements, Arithmetic::kFloat);
}

void SiluMul(::benchmark::State& state, uint32_t rows, uint32_t threads) {
  Ops& device = Device(threads, ActivationFormat::kInt8);
  RandomRows gate(rows, kFfn, 1), up(rows, kFfn, 2), out(rows, kFfn, 3);
  const double start = Now();
  for (auto _ : state) {
    device.SiluMul(gate.rows(), up.rows(), out.rows());
    ::benchmark::ClobberMemory();
  }
  const double elements = static_cast<double>(rows) * kFfn;
  Report(state, Now() - start, threads, 12 * elements, 0, Arithmetic::kOther);
}

void Add(::benchmark::State& state, uint32_t rows, uint32_t threads) {
  Ops& device = Device(threads, ActivationFormat::kInt8);
  RandomRows x(rows, kHidden, 1), y(rows, kHidden, 2);
  const double start = Now();
  for (auto _ : state) {
    device.Add(x.rows(), y.rows(), x.rows());
    ::benchmark::ClobberMemory();
  }
  const double elements = static_cast<double>(rows) * kHidden;
  Report(state, Now() - start, threads, 12 * elements, elements, Arithmetic::kFloat);
}

// The kernel itself on one thread: in the op it is a part of the product.
void Quantize(::benchmark::State& state, uint32_t rows, uint32_t threads) {
  const cpu::Kernels& kernels = **cpu::SelectKernels(IsaLevel::kAuto);
  RandomRows x(rows, kFfn, 1);
  constexpr uint32_t kBlocks = kFfn / cpu::kBlockColumns;
  std::vector<int8_t> q(x.values.size());
  std::vector<float> scale(size_t{rows} * kBlocks), sum(scale.size());
  std::vector<int32_t> total(scale.size());
  const cpu::QuantizedRows out{q.data(), scale.data(), sum.data(), total.data(), kBlocks};
  const double start = Now();
  for (auto _ : state) {
    for (uint32_t row = 0; row < rows; ++row) kernels.quantize_row(x.rows().row(row), row, out);
    ::benchmark::ClobberMemory();
  }
  const double elements = static_cast<double>(rows) * kFfn;
  Report(state, Now() - start, threads, 5 * elements, 0, Arithmetic::kOther);
}

void RegisterRowOp(const char* op, void (*body)(::benchmark::State&, uint32_t, uint32_t),
                   uint32_t threads) {
  for (const uint32_t rows : kRowCounts) {
    const std::string name =
        std::string(op) + "/rows:" + std::to_string(rows) + "/threads:" + std::to_string(threads);
    ::benchmark::RegisterBenchmark(name.c_str(), [body, rows, threads](::benchmark::State& state) {
      body(state, rows, threads);
    })->UseRealTime();
  }
}

}  // namespace

void RegisterRows(uint32_t threads) {
  RegisterRowOp("norm", Norm, threads);
  RegisterRowOp("silu_mul", SiluMul, threads);
  RegisterRowOp("add", Add, threads);
  if (threads == 1) RegisterRowOp("quantise", Quantize, threads);
}

}  // namespace muselet::bench
