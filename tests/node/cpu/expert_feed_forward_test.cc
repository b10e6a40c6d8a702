// Experts against the same written out in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/device/dequantize.h"
#include "node/cpu/cpu_ops.h"
#include "tests/node/cpu/random_data.h"

namespace muselet {
namespace {

using testing::RandomFloats;
using testing::RandomTensor;

constexpr uint32_t kRows = 37, kHidden = 64, kFfn = 96, kExperts = 6;

struct Expert {
  explicit Expert(DType dtype, uint32_t seed)
      : gate(dtype, kFfn, kHidden, seed),
        up(dtype, kFfn, kHidden, seed + 1),
        down(dtype, kHidden, kFfn, seed + 2) {}
  RandomTensor gate, up, down;
};

std::vector<double> Times(const RandomTensor& weight, const std::vector<double>& x) {
  std::vector<float> w(weight.view.count());
  CHECK(DequantizeRow(weight.view.dtype, weight.view.data, w.size(), w.data()).ok(), "blocks");
  std::vector<double> out(weight.view.dim(0));
  for (size_t n = 0; n < out.size(); ++n)
    for (size_t k = 0; k < x.size(); ++k) out[n] += w[n * x.size() + k] * x[k];
  return out;
}

// What a row gets from its experts.
std::vector<double> RowOf(const std::vector<Expert>& experts, const float* x, const float* scores,
                          const RouterSpec& router) {
  std::vector<uint32_t> order(kExperts);
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  double all = 0, chosen = 0;
  for (uint32_t i = 0; i < kExperts; ++i) {
    all += std::exp(scores[order[i]]);
    if (i < router.active) chosen += std::exp(scores[order[i]]);
  }
  const std::vector<double> input(x, x + kHidden);
  std::vector<double> out(kHidden);
  for (uint32_t i = 0; i < router.active; ++i) {
    const Expert& expert = experts[order[i]];
    std::vector<double> gate = Times(expert.gate, input);
    const std::vector<double> up = Times(expert.up, input);
    for (uint32_t f = 0; f < kFfn; ++f) gate[f] *= up[f] / (1.0 + std::exp(-gate[f]));
    const std::vector<double> down = Times(expert.down, gate);
    const double weight = std::exp(scores[order[i]]) / (router.renormalised ? chosen : all);
    for (uint32_t n = 0; n < kHidden; ++n) out[n] += weight * down[n];
  }
  return out;
}

struct Loaded {
  std::vector<std::unique_ptr<Matrix>> matrices;
  std::vector<ExpertWeights> experts;
};

Loaded Load(Ops& ops, const std::vector<Expert>& experts) {
  Loaded loaded;
  for (const Expert& expert : experts) {
    for (const RandomTensor* tensor : {&expert.gate, &expert.up, &expert.down})
      loaded.matrices.push_back(ops.Prepare(tensor->view, 1).value());
    const size_t last = loaded.matrices.size() - 1;
    loaded.experts.push_back({loaded.matrices[last - 2].get(), loaded.matrices[last - 1].get(),
                              loaded.matrices[last].get()});
  }
  return loaded;
}

TEST(ExpertFeedForwardTest, ComesCloseToDoubles) {
  for (const auto activations : {ActivationFormat::kFloat32, ActivationFormat::kInt8}) {
    for (const DType dtype : {DType::kF32, DType::kQ8_0, DType::kQ4_1}) {
      std::vector<Expert> experts;
      for (uint32_t e = 0; e < kExperts; ++e) experts.emplace_back(dtype, 10 * e + 1);
      const auto ops = cpu::MakeCpuOps({activations, 2, IsaLevel::kAuto});
      ASSERT_TRUE(ops.ok());
      const Loaded loaded = Load(**ops, experts);
      for (const bool renormalised : {true, false}) {
        const RouterSpec router = {kExperts, 2, renormalised};
        auto x = RandomFloats(size_t{kRows} * kHidden, 1);
        auto scores = RandomFloats(size_t{kRows} * kExperts, 2);
        std::fill_n(scores.begin(), kExperts, 0.5F);  // equal ones: the lower experts
        std::vector<float> gate(size_t{kRows} * 2 * kFfn), up(gate.size()), down(gate.size());
        std::vector<float> out(x.size(), 0.25F);
        const ExpertPart part = {0, loaded.experts, 3, {out.data(), kRows, kHidden}, true};
        (*ops)->ExpertFeedForward({x.data(), kRows, kHidden}, {scores.data(), kRows, kExperts},
                                  router, {gate.data(), up.data(), down.data()}, {&part, 1});
        double worst = 0, largest = 0;
        for (uint32_t row = 0; row < kRows; ++row) {
          const auto expected = RowOf(experts, x.data() + size_t{row} * kHidden,
                                      scores.data() + size_t{row} * kExperts, router);
          for (uint32_t n = 0; n < kHidden; ++n) {
            const double off = out[size_t{row} * kHidden + n] - 0.25 - expected[n];
            worst = std::max(worst, std::fabs(off));
            largest = std::max(largest, std::fabs(expected[n]));
          }
        }
        const bool rounded = activations == ActivationFormat::kInt8 && IsQuantized(dtype);
        EXPECT_LT(worst, largest * (rounded ? 0.03 : 1e-5)) << Traits(dtype).name;
      }
    }
  }
}

}  // namespace
}  // namespace muselet
