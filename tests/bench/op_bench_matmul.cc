// Products of activations with SmolLM2-135M's weight matrices, in every format. The weights of one
// benchmark are a ring of equal matrices larger than the last cache, as the layers of a model are:
// each product finds its matrix in main memory.
#include <algorithm>
#include <string>

#include "base/check.h"
#include "tests/bench/op_bench.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::bench {
namespace {

constexpr size_t kRingBytes = 96U << 20;
constexpr uint32_t kRowCounts[] = {1, 2, 3, 4, 5, 8, 16, 32, 33, 128};

struct Shape {
  const char* name;
  uint32_t outputs;
  uint32_t columns;
};
constexpr Shape kShapes[] = {{"qkv", 960, 576},
                             {"attention_out", 576, 576},
                             {"gate_up", 3072, 576},
                             {"down", 576, 1536},
                             {"lm_head", 49152, 576}};

struct Case {
  DType dtype;
  ActivationFormat activations;
  Shape shape;
  uint32_t threads;
};

// The matrices of the benchmark that ran last; benchmarks run shape after shape.
class WeightRing {
 public:
  void Fill(const Case& wanted) {
    const std::string name = std::string(Traits(wanted.dtype).name) + wanted.shape.name +
                             std::to_string(wanted.threads) +
                             std::to_string(static_cast<int>(wanted.activations));
    if (name == name_) return;
    name_ = name;
    matrices_.clear();
    bytes_ = 0;
    const testing::RandomTensor tensor(wanted.dtype, wanted.shape.outputs, wanted.shape.columns, 1);
    Ops& device = Device(wanted.threads, wanted.activations);
    while (bytes_ < kRingBytes) {
      auto matrix = device.Prepare(tensor.view, 1);
      CHECK(matrix.ok(), matrix.status().message());
      bytes_ += (*matrix)->bytes();
      matrices_.push_back(std::move(matrix).value());
    }
    next_ = 0;
  }
  const Matrix& Next() {
    next_ = (next_ + 1) % matrices_.size();
    return *matrices_[next_];
  }

 private:
  std::string name_;
  std::vector<std::unique_ptr<Matrix>> matrices_;
  size_t bytes_ = 0;
  size_t next_ = 0;
};

// Q6_K blocks hold 256 columns: the nearest width stands for 576.
Shape Fitting(const Shape& shape, DType dtype) {
  const uint32_t block = Traits(dtype).block_values;
  return {shape.name, shape.outputs, (shape.columns + block - 1) / block * block};
}

void MatMul(::benchmark::State& state, const Case& measured, uint32_t rows, WeightRing& ring) {
  ring.Fill(measured);
  Ops& device = Device(measured.threads, measured.activations);
  RandomRows x(rows, measured.shape.columns, 2), out(rows, measured.shape.outputs, 3);
  const double start = Now();
  for (auto _ : state) {
    const MatMulTarget target{&ring.Next(), nullptr, out.rows()};
    device.MatMul(x.rows(), {&target, 1});
    ::benchmark::ClobberMemory();
  }
  const bool int8 = measured.activations == ActivationFormat::kInt8 && IsQuantized(measured.dtype);
  Report(state, Now() - start, measured.threads, static_cast<double>(ring.Next().bytes()),
         2.0 * measured.shape.outputs * measured.shape.columns * rows,
         int8 ? Arithmetic::kInt8 : Arithmetic::kFloat);
}

void RegisterCase(const Case& measured) {
  static WeightRing ring;
  const bool int8 = measured.activations == ActivationFormat::kInt8 && IsQuantized(measured.dtype);
  for (const uint32_t rows : kRowCounts) {
    const std::string name = "matmul/" + std::string(Traits(measured.dtype).name) +
                             (int8 ? "_int8/" : "_float/") + measured.shape.name +
                             "/rows:" + std::to_string(rows) +
                             "/threads:" + std::to_string(measured.threads);
    ::benchmark::RegisterBenchmark(name.c_str(), [measured, rows](::benchmark::State& state) {
      MatMul(state, measured, rows, ring);
    })->UseRealTime();
  }
}

}  // namespace

void RegisterMatMul(uint32_t threads) {
  for (const DType dtype : testing::kMatrixDTypes) {
    for (const Shape& shape : kShapes) {
      const Shape fitting = Fitting(shape, dtype);
      RegisterCase({dtype, ActivationFormat::kInt8, fitting, threads});
      if (dtype == DType::kQ4_1)
        RegisterCase({dtype, ActivationFormat::kFloat32, fitting, threads});
    }
  }
}

}  // namespace muselet::bench
