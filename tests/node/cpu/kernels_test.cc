// Every kernel: each level against the plain one bit by bit, the plain one against doubles.
#include "node/cpu/kernels.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/device/dequantize.h"
#include "node/cpu/isa.h"
#include "node/cpu/packed_matrix.h"
#include "tests/node/cpu/emulated_vnni.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::cpu {
namespace {

using testing::kMatrixDTypes;
using testing::RandomFloats;
using testing::RandomTensor;
using testing::SameBits;

// The AVX2 table, or a skip that says why.
#define SKIP_WITHOUT_AVX2(kernels)                                              \
  const auto kernels##_found = SelectKernels(IsaLevel::kAvx2);                  \
  if (!kernels##_found.ok()) GTEST_SKIP() << "no such ISA: AVX2, FMA and F16C"; \
  const Kernels& kernels = **kernels##_found

struct Level {
  const char* name;
  Kernels kernels;
};

// Every level of int8 products that can run here; where AVX-512 is missing, its code runs with the
// instruction of VNNI spelled out.
std::vector<Level> Int8Levels() {
  const auto avx2 = SelectKernels(IsaLevel::kAvx2);
  if (!avx2.ok()) return {};
  std::vector<Level> levels = {{"avx2", **avx2}, {"emulated VNNI", **avx2}};
  levels.back().kernels.matmul_int8 = muselet::testing::EmulatedVnniMatMulInt8;
  if (const auto avx512 = SelectKernels(IsaLevel::kAvx512); avx512.ok())
    levels.push_back({"avx512", **avx512});
  return levels;
}

// Rounded rows and the memory behind them.
struct QuantizedInput {
  QuantizedInput(const Kernels& kernels, const std::vector<float>& x, uint32_t rows, uint32_t width)
      : q(size_t{rows} * width), scale(q.size() / 32), sum(q.size() / 32), total(q.size() / 32) {
    view = {q.data(), scale.data(), sum.data(), total.data(), width / 32};
    for (uint32_t row = 0; row < rows; ++row)
      kernels.quantize_row(x.data() + size_t{row} * width, row, view);
  }
  std::vector<int8_t> q;
  std::vector<float> scale, sum;
  std::vector<int32_t> total;
  QuantizedRows view;
};

struct Product {
  DType dtype = DType::kF32;
  uint32_t rows = 1;     // M
  uint32_t outputs = 8;  // N
  uint32_t columns = 256;
  uint32_t segments = 1;
  bool bias = false;
  bool int8 = false;
  bool accumulate = false;
};

std::vector<float> Multiply(const Kernels& kernels, const Product& shape, const PanelView& weight,
                            const std::vector<float>& x, const std::vector<float>& bias) {
  std::vector<float> out(size_t{shape.rows} * shape.outputs, shape.accumulate ? 0.75F : NAN);
  MatMulTile tile;
  tile.accumulate = shape.accumulate;
  tile.weight = weight;
  tile.panel_end = (shape.outputs + kPanelRows - 1) / kPanelRows;
  tile.row_end = shape.rows;
  tile.x = x.data();
  tile.bias = shape.bias ? bias.data() : nullptr;
  tile.out = out.data();
  if (shape.int8) {
    const QuantizedInput input(kernels, x, shape.rows, shape.columns);
    tile.quantized = input.view;
    kernels.matmul_int8(tile);
  } else {
    kernels.matmul_float(tile);
  }
  return out;
}

std::vector<Product> Products() {
  std::vector<Product> shapes;
  for (const DType dtype : kMatrixDTypes) {
    for (const bool int8 : {false, true}) {
      if (int8 && !IsQuantized(dtype)) continue;
      for (const uint32_t rows : {1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U, 9U, 13U, 31U, 32U, 33U})
        shapes.push_back({dtype, rows, 40, 256, 1, false, int8});
      for (const uint32_t outputs : {1U, 7U, 9U, 31U, 33U, 65U})
        for (const bool accumulate : {false, true})
          shapes.push_back({dtype, 5, outputs, 256, 1, true, int8, accumulate});
      shapes.push_back({dtype, 5, 24, 768, 3, false, int8});
      shapes.push_back({dtype, 2, 24, 1536, 8, true, int8});
    }
    if (!IsQuantized(dtype)) shapes.push_back({dtype, 5, 24, 77, 1, true, false});
  }
  return shapes;
}

TEST(MatMulKernelTest, LevelsGiveTheScalarBits) {
  const std::vector<Level> levels = Int8Levels();
  if (levels.empty()) GTEST_SKIP() << "no such ISA: AVX2, FMA and F16C";
  ThreadPool pool(1);
  uint32_t seed = 1;
  for (const Product& shape : Products()) {
    const RandomTensor weight(shape.dtype, shape.outputs, shape.columns, ++seed);
    const auto packed = PackedMatrix::Pack(weight.view, shape.segments, pool);
    ASSERT_TRUE(packed.ok()) << packed.status().message();
    const auto x = RandomFloats(size_t{shape.rows} * shape.columns, ++seed);
    const auto bias = RandomFloats(shape.outputs, ++seed);
    const auto expected = Multiply(ScalarKernels(), shape, (*packed)->view(), x, bias);
    for (const Level& level : levels)
      EXPECT_TRUE(SameBits(expected, Multiply(level.kernels, shape, (*packed)->view(), x, bias)))
          << level.name << ": " << weight.view.ToString() << " x " << shape.rows << " rows, "
          << shape.segments << " segments, int8 " << shape.int8;
  }
}

// Against sums in double of the dequantised weights; int8 inputs are off by half a step of their
// scale at most.
TEST(MatMulKernelTest, ScalarComesCloseToDoubles) {
  ThreadPool pool(1);
  uint32_t seed = 1;
  for (const Product& shape : Products()) {
    const RandomTensor weight(shape.dtype, shape.outputs, shape.columns, ++seed);
    const auto packed = PackedMatrix::Pack(weight.view, shape.segments, pool);
    const auto x = RandomFloats(size_t{shape.rows} * shape.columns, ++seed);
    const auto bias = RandomFloats(shape.outputs, ++seed);
    const auto out = Multiply(ScalarKernels(), shape, (*packed)->view(), x, bias);
    std::vector<float> w(shape.columns);
    for (uint32_t n = 0; n < shape.outputs; ++n) {
      const size_t row_bytes = weight.bytes.size() / shape.outputs;
      ASSERT_TRUE(
          DequantizeRow(shape.dtype, weight.bytes.data() + n * row_bytes, shape.columns, w.data())
              .ok());
      for (uint32_t m = 0; m < shape.rows; ++m) {
        double sum = (shape.bias ? bias[n] : 0.0) + (shape.accumulate ? 0.75 : 0.0);
        double magnitude = 0.0;
        for (uint32_t k = 0; k < shape.columns; ++k) {
          sum += static_cast<double>(w[k]) * x[size_t{m} * shape.columns + k];
          magnitude += std::fabs(w[k]);
        }
        // Inputs are below 5, so a step of int8 is below 5 / 127; float errors are far smaller.
        const double tolerance = shape.int8 ? magnitude * 0.5 * 5 / 127 : 1e-4 * (1 + magnitude);
        ASSERT_NEAR(out[size_t{m} * shape.outputs + n], sum, tolerance) << weight.view.ToString();
      }
    }
  }
}

// All values of weights and inputs at their largest magnitude: no intermediate may saturate.
TEST(MatMulKernelTest, ExtremeValuesDoNotSaturate) {
  const std::vector<Level> levels = Int8Levels();
  if (levels.empty()) GTEST_SKIP() << "no such ISA: AVX2, FMA and F16C";
  ThreadPool pool(1);
  for (const DType dtype : kMatrixDTypes) {
    if (!IsQuantized(dtype)) continue;
    for (const uint8_t fill : {0x00, 0x7F, 0x80, 0xFF}) {
      RandomTensor weight(dtype, 8, 256, 1);
      const DTypeTraits traits = Traits(dtype);
      for (size_t i = 0; i < weight.bytes.size(); ++i) {
        const size_t at = i % traits.block_bytes;
        const bool scale =
            dtype == DType::kQ6_K ? at >= 208 : at < (HasMinimum(dtype) ? size_t{4} : size_t{2});
        if (!scale) weight.bytes[i] = static_cast<std::byte>(fill);
      }
      const auto packed = PackedMatrix::Pack(weight.view, 1, pool);
      const Product shape = {dtype, 2, 8, 256, 1, false, true};
      std::vector<float> x(512, 3.0F);
      for (size_t i = 256; i < 512; ++i) x[i] = i % 2 == 0 ? -3.0F : 3.0F;
      const auto scalar = Multiply(ScalarKernels(), shape, (*packed)->view(), x, {});
      for (const Level& level : levels)
        EXPECT_TRUE(SameBits(scalar, Multiply(level.kernels, shape, (*packed)->view(), x, {})))
            << level.name << ": " << traits.name << " filled with " << int{fill};
    }
  }
}

TEST(QuantizeKernelTest, RoundsWithinHalfAStepAndLevelsAgree) {
  std::vector<float> x = RandomFloats(33 * 32, 3);
  std::fill_n(x.begin(), 32, 0.0F);
  std::fill_n(x.begin() + 32, 32, 1e-35F);  // too small for a scale
  const QuantizedInput scalar(ScalarKernels(), x, 1, static_cast<uint32_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const float step = scalar.scale[i / 32];
    EXPECT_LE(std::fabs(static_cast<float>(scalar.q[i]) * step - x[i]), 0.5001F * step + 1e-34F);
  }
  SKIP_WITHOUT_AVX2(avx2);
  const QuantizedInput fast(avx2, x, 1, static_cast<uint32_t>(x.size()));
  EXPECT_EQ(scalar.q, fast.q);
  EXPECT_EQ(scalar.total, fast.total);
  EXPECT_TRUE(SameBits(scalar.scale, fast.scale));
  EXPECT_TRUE(SameBits(scalar.sum, fast.sum));
}

TEST(RmsNormKernelTest, MatchesDoublesAndLevelsAgree) {
  for (const uint32_t width : {1U, 7U, 8U, 9U, 64U, 576U, 1001U}) {
    const auto x = RandomFloats(width, width), weight = RandomFloats(width, width + 1);
    std::vector<float> out(width), fast(width);
    ScalarKernels().rms_norm_row(x.data(), weight.data(), 1e-5F, width, out.data());
    double squares = 0.0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    const double scale = 1.0 / std::sqrt(squares / width + 1e-5);
    for (uint32_t i = 0; i < width; ++i) EXPECT_NEAR(out[i], x[i] * scale * weight[i], 2e-5);
    if (const auto avx2 = SelectKernels(IsaLevel::kAvx2); avx2.ok()) {
      (*avx2)->rms_norm_row(x.data(), weight.data(), 1e-5F, width, fast.data());
      EXPECT_TRUE(SameBits(out, fast)) << width;
    }
  }
}

TEST(SiluKernelTest, MatchesDoublesAndLevelsAgree) {
  std::vector<float> gate;
  for (float g = -110.0F; g < 110.0F; g += 0.037F) gate.push_back(g);
  const auto up = RandomFloats(gate.size(), 5);
  std::vector<float> out(gate.size()), fast(gate.size());
  ScalarKernels().silu_mul(gate.data(), up.data(), gate.size(), out.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double expected = gate[i] / (1.0 + std::exp(-static_cast<double>(gate[i]))) * up[i];
    ASSERT_NEAR(out[i], expected, std::fabs(expected) * 1e-6 + 1e-30) << gate[i];
  }
  SKIP_WITHOUT_AVX2(avx2);
  avx2.silu_mul(gate.data(), up.data(), gate.size(), fast.data());
  EXPECT_TRUE(SameBits(out, fast));
}

TEST(GeluKernelTest, MatchesDoublesAndLevelsAgree) {
  std::vector<float> gate;
  for (float g = -12.0F; g < 12.0F; g += 0.0031F) gate.push_back(g);
  const auto up = RandomFloats(gate.size(), 5);
  std::vector<float> out(gate.size()), fast(gate.size());
  ScalarKernels().gelu_mul(gate.data(), up.data(), gate.size(), out.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i];
    const double u = std::sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
    const double expected = 0.5 * x * (1.0 + std::tanh(u)) * up[i];
    ASSERT_NEAR(out[i], expected, 2e-6 * (1e-2 + std::fabs(x * up[i]))) << x;
  }
  SKIP_WITHOUT_AVX2(avx2);
  avx2.gelu_mul(gate.data(), up.data(), gate.size(), fast.data());
  EXPECT_TRUE(SameBits(out, fast));
}

TEST(SigmoidKernelTest, MatchesDoublesAndLevelsAgree) {
  std::vector<float> gate;
  for (float g = -110.0F; g < 110.0F; g += 0.037F) gate.push_back(g);
  const auto x = RandomFloats(gate.size(), 5);
  std::vector<float> out(gate.size()), fast(gate.size());
  ScalarKernels().sigmoid_mul(gate.data(), x.data(), gate.size(), out.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double expected = x[i] / (1.0 + std::exp(-static_cast<double>(gate[i])));
    ASSERT_NEAR(out[i], expected, std::fabs(expected) * 1e-6 + 1e-30) << gate[i];
  }
  SKIP_WITHOUT_AVX2(avx2);
  avx2.sigmoid_mul(gate.data(), x.data(), gate.size(), fast.data());
  EXPECT_TRUE(SameBits(out, fast));
}

TEST(SoftCapKernelTest, MatchesDoublesAndLevelsAgree) {
  std::vector<float> x;
  for (float g = -3000.0F; g < 3000.0F; g += 0.73F) x.push_back(g);
  std::vector<float> out(x.size()), fast(x.size());
  for (const float cap : {20.0F, 30.0F, 50.0F}) {
    ScalarKernels().soft_cap(x.data(), cap, x.size(), out.data());
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_NEAR(out[i], cap * std::tanh(static_cast<double>(x[i]) / cap), cap * 1e-6) << x[i];
    const auto avx2 = SelectKernels(IsaLevel::kAvx2);
    if (!avx2.ok()) continue;
    (*avx2)->soft_cap(x.data(), cap, x.size(), fast.data());
    EXPECT_TRUE(SameBits(out, fast));
  }
}

}  // namespace
}  // namespace muselet::cpu
