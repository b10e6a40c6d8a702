// A fault planted on purpose: an op whose order of summation depends on how many rows a step has,
// as a library does that picks its kernel by the number of rows. Tests of row invariance must
// notice it, or they prove nothing.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "base/device/ops.h"

namespace muselet::testing {

// Passes every op on; RmsNorm of at least `rows_min` rows sums from the back.
class RowCountDependentOps : public Ops {
 public:
  RowCountDependentOps(std::unique_ptr<Ops> ops, uint32_t rows_min)
      : ops_(std::move(ops)), rows_min_(rows_min) {}

  std::string LayoutName() const override { return ops_->LayoutName(); }
  std::string ActivationName() const override { return ops_->ActivationName(); }
  Result<DeviceBuffer> Allocate(size_t bytes) override { return ops_->Allocate(bytes); }
  Result<std::unique_ptr<Matrix>> Prepare(const TensorView& weight, uint32_t segments) override {
    return ops_->Prepare(weight, segments);
  }
  Result<std::unique_ptr<Matrix>> PrepareColumns(const TensorView& weight, ColumnRange columns,
                                                 uint32_t segments) override {
    return ops_->PrepareColumns(weight, columns, segments);
  }
  Result<std::unique_ptr<Matrix>> PrepareTable(const TensorView& table) override {
    return ops_->PrepareTable(table);
  }
  Result<DeviceBuffer> PrepareVector(const TensorView& vector) override {
    return ops_->PrepareVector(vector);
  }
  void Gather(const Matrix& table, std::span<const TokenId> ids, Rows out) override {
    ops_->Gather(table, ids, out);
  }
  void RmsNorm(Rows x, const float* weight, float eps, Rows out) override {
    if (x.count < rows_min_) return ops_->RmsNorm(x, weight, eps, out);
    for (uint32_t row = 0; row < x.count; ++row) {
      float sum = 0.0F;
      for (uint32_t i = x.width; i > 0; --i) sum += x.row(row)[i - 1] * x.row(row)[i - 1];
      const float scale = 1.0F / std::sqrt(sum / static_cast<float>(x.width) + eps);
      for (uint32_t i = 0; i < x.width; ++i) out.row(row)[i] = x.row(row)[i] * scale * weight[i];
    }
  }
  void MatMul(Rows x, std::span<const MatMulTarget> targets) override { ops_->MatMul(x, targets); }
  void Rope(Rows x, uint32_t head_dim, const RopeRows& angles) override {
    ops_->Rope(x, head_dim, angles);
  }
  void KvWrite(Rows k, Rows v, const StepRows& rows, const PagedKv& cache) override {
    ops_->KvWrite(k, v, rows, cache);
  }
  void Attention(Rows q, const StepRows& rows, const PagedKv& cache, const AttentionSpec& spec,
                 Rows out) override {
    ops_->Attention(q, rows, cache, spec, out);
  }
  void SiluMul(Rows gate, Rows up, Rows out) override { ops_->SiluMul(gate, up, out); }
  void GeluMul(Rows gate, Rows up, Rows out) override { ops_->GeluMul(gate, up, out); }
  void SigmoidMul(Rows gate, Rows x, Rows out) override { ops_->SigmoidMul(gate, x, out); }
  void SoftCap(Rows x, float cap, Rows out) override { ops_->SoftCap(x, cap, out); }
  void Scale(Rows x, float factor, Rows out) override { ops_->Scale(x, factor, out); }
  void Clear(Rows out) override { ops_->Clear(out); }
  void ExpertFeedForward(Rows x, Rows scores, const RouterSpec& router,
                         const ExpertScratch& scratch, std::span<const ExpertPart> parts) override {
    ops_->ExpertFeedForward(x, scores, router, scratch, parts);
  }
  void Add(Rows x, Rows y, Rows out) override { ops_->Add(x, y, out); }
  void AddPartials(std::span<const PartialSum> parts, const float* bias, Rows out) override {
    ops_->AddPartials(parts, bias, out);
  }
  void SelectRows(Rows x, std::span<const uint32_t> rows, Rows out) override {
    ops_->SelectRows(x, rows, out);
  }
  size_t KvBlockBytes(const KvShape& shape) const override { return ops_->KvBlockBytes(shape); }

 private:
  std::unique_ptr<Ops> ops_;
  uint32_t rows_min_;
};

}  // namespace muselet::testing
