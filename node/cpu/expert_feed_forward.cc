#include "node/cpu/expert_feed_forward.h"

#include <algorithm>

#include "base/check.h"

namespace muselet::cpu {
namespace {

constexpr uint32_t kRowsPerPiece = 64;
constexpr uint32_t kPanelsPerPiece = 16;
constexpr uint32_t kRowsPerTile = 4;     // of work a row
constexpr uint32_t kColumnsAtOnce = 64;  // of a combined row
constexpr uint32_t kGroupsMax = 64;

uint32_t DivideUp(uint32_t a, uint32_t b) {
  return (a + b - 1) / b;
}

// body(i) for i in [0, count), on all threads.
template <typename Body>
void ForEach(ThreadPool& pool, uint32_t count, const Body& body) {
  pool.ParallelFor(DivideUp(count, kRowsPerTile), [&](uint32_t tile, uint32_t) {
    const uint32_t end = std::min(count, (tile + 1) * kRowsPerTile);
    for (uint32_t i = tile * kRowsPerTile; i < end; ++i) body(i);
  });
}

template <typename Predicate>
bool AnyWeight(std::span<const ExpertPart> parts, const Predicate& predicate) {
  for (const ExpertPart& part : parts)
    for (const ExpertWeights& expert : part.experts)
      if (predicate(expert)) return true;
  return false;
}

}  // namespace

// The largest scores, the lower expert of equal ones.
void ExpertRoutes::Choose(const float* scores, const RouterSpec& router, Choice* choices) {
  for (uint32_t i = 0; i < router.active; ++i) {
    uint32_t best = router.experts;
    for (uint32_t e = 0; e < router.experts; ++e) {
      const auto same = [e](const Choice& choice) { return choice.expert == e; };
      if (std::any_of(choices, choices + i, same)) continue;
      if (best == router.experts || scores[e] > scores[best]) best = e;
    }
    choices[i].expert = best;
  }
  const float largest = scores[choices[0].expert];
  float sum = 0.0F;
  for (uint32_t e = 0; e < router.experts; ++e) sum += exp_[e] = ScalarExp(scores[e] - largest);
  std::sort(choices, choices + router.active,
            [](const Choice& a, const Choice& b) { return a.expert < b.expert; });
  float chosen = 0.0F;
  for (uint32_t i = 0; i < router.active; ++i)
    chosen += choices[i].weight = exp_[choices[i].expert] / sum;
  if (!router.renormalised) return;
  for (uint32_t i = 0; i < router.active; ++i) choices[i].weight /= chosen;
}

void ExpertRoutes::Route(Rows scores, const RouterSpec& router, const std::vector<bool>& held) {
  CHECK(scores.width == router.experts && router.active > 0 && router.active <= router.experts,
        "experts: the scores do not fit");
  active_ = router.active;
  choices_.resize(size_t{scores.count} * active_);
  exp_.resize(router.experts);
  begin_.assign(router.experts + 1, 0);
  for (uint32_t row = 0; row < scores.count; ++row) {
    Choice* const choices = choices_.data() + size_t{row} * active_;
    Choose(scores.row(row), router, choices);
    for (uint32_t i = 0; i < active_; ++i)
      if (held[choices[i].expert]) ++begin_[choices[i].expert + 1];
  }
  for (uint32_t e = 0; e < router.experts; ++e) begin_[e + 1] += begin_[e];
  next_.assign(begin_.begin(), begin_.end() - 1);
  entries_.resize(begin_.back());
  for (uint32_t row = 0; row < scores.count; ++row) {
    for (uint32_t i = 0; i < active_; ++i) {
      Choice& choice = choices_[size_t{row} * active_ + i];
      if (!held[choice.expert]) continue;
      choice.entry = next_[choice.expert]++;
      entries_[choice.entry] = {row, choice.weight};
    }
  }
}

void ExpertFeedForward::Compute(Rows x, Rows scores, const RouterSpec& router,
                                const ExpertScratch& scratch, std::span<const ExpertPart> parts) {
  held_.assign(router.experts, false);
  for (const ExpertPart& part : parts) {
    CHECK(part.begin + part.experts.size() <= router.experts && part.groups <= kGroupsMax &&
              part.experts.size() % part.groups == 0,
          "experts: a part does not fit");
    std::fill_n(held_.begin() + part.begin, part.experts.size(), true);
  }
  routes_.Route(scores, router, held_);
  GatherInputs(x, parts);
  const auto each_expert = [&](const auto& body) {
    pieces_.clear();
    for (const ExpertPart& part : parts)
      for (uint32_t i = 0; i < part.experts.size(); ++i)
        body(part.experts[i], routes_.begin(part.begin + i), routes_.begin(part.begin + i + 1));
  };
  each_expert([&](const ExpertWeights& expert, uint32_t begin, uint32_t end) {
    AddPieces(expert.gate, scratch.gate, begin, end);
    AddPieces(expert.up, scratch.up, begin, end);
  });
  Multiply(sorted_.data());
  Activate(scratch, parts[0].experts[0].down->columns(), parts);
  each_expert([&](const ExpertWeights& expert, uint32_t begin, uint32_t end) {
    AddPieces(expert.down, scratch.down, begin, end);
  });
  Multiply(scratch.gate);
  for (const ExpertPart& part : parts) Combine(part, scratch.down);
}

// The rows of x in the order of the entries, as floats or rounded, as the experts need them.
void ExpertFeedForward::GatherInputs(Rows x, std::span<const ExpertPart> parts) {
  const bool rounded = AnyWeight(
      parts, [&](const ExpertWeights& e) { return UsesInt8(*e.gate) || UsesInt8(*e.up); });
  const bool plain = AnyWeight(
      parts, [&](const ExpertWeights& e) { return !UsesInt8(*e.gate) || !UsesInt8(*e.up); });
  const size_t floats = size_t{routes_.entries()} * x.width;
  if (plain && sorted_.size() < floats) sorted_.resize(floats);
  if (rounded) quantized_ = buffer_.Reserve(routes_.entries(), x.width);
  ForEach(pool_, routes_.entries(), [&](uint32_t i) {
    const float* const from = x.row(routes_.entry(i).row);
    if (plain) std::copy_n(from, x.width, sorted_.data() + size_t{i} * x.width);
    if (rounded) kernels_.quantize_row(from, i, quantized_);
  });
}

// silu(gate) * up into gate, rounded too where a product needs that.
void ExpertFeedForward::Activate(const ExpertScratch& scratch, uint32_t width,
                                 std::span<const ExpertPart> parts) {
  const bool rounded =
      AnyWeight(parts, [&](const ExpertWeights& expert) { return UsesInt8(*expert.down); });
  if (rounded) quantized_ = buffer_.Reserve(routes_.entries(), width);
  ForEach(pool_, routes_.entries(), [&](uint32_t i) {
    float* const gate = scratch.gate + size_t{i} * width;
    kernels_.silu_mul(gate, scratch.up + size_t{i} * width, width, gate);
    if (rounded) kernels_.quantize_row(gate, i, quantized_);
  });
}

void ExpertFeedForward::AddPieces(const Matrix* weight, float* out, uint32_t row_begin,
                                  uint32_t row_end) {
  const auto* packed = static_cast<const PackedMatrix*>(weight);
  const uint32_t panels = packed->panel_count();
  for (uint32_t row = row_begin; row < row_end; row += kRowsPerPiece)
    for (uint32_t panel = 0; panel < panels; panel += kPanelsPerPiece)
      pieces_.push_back({packed, out, panel, std::min(panel + kPanelsPerPiece, panels), row,
                         std::min(row + kRowsPerPiece, row_end)});
}

void ExpertFeedForward::Multiply(const float* x) {
  pool_.ParallelFor(static_cast<uint32_t>(pieces_.size()), [&](uint32_t index, uint32_t) {
    const Piece& piece = pieces_[index];
    const MatMulTile tile = {piece.weight->view(),
                             piece.panel_begin,
                             piece.panel_end,
                             piece.row_begin,
                             piece.row_end,
                             x,
                             quantized_,
                             nullptr,
                             piece.out,
                             false};
    (UsesInt8(*piece.weight) ? kernels_.matmul_int8 : kernels_.matmul_float)(tile);
  });
}

void ExpertFeedForward::Combine(const ExpertPart& part, const float* down) {
  const auto experts = static_cast<uint32_t>(part.experts.size());
  const uint32_t run = experts / part.groups, width = part.out.width;
  ForEach(pool_, part.out.count, [&](uint32_t row) {
    float sums[kGroupsMax][kColumnsAtOnce];
    for (uint32_t begin = 0; begin < width; begin += kColumnsAtOnce) {
      const uint32_t count = std::min(kColumnsAtOnce, width - begin);
      for (uint32_t g = 0; g < part.groups; ++g) std::fill_n(sums[g], count, 0.0F);
      for (const ExpertRoutes::Choice& choice : routes_.choices(row)) {
        if (choice.expert < part.begin || choice.expert >= part.begin + experts) continue;
        const float* const from = down + size_t{choice.entry} * width + begin;
        float* const sum = sums[(choice.expert - part.begin) / run];
        for (uint32_t i = 0; i < count; ++i) sum[i] += choice.weight * from[i];
      }
      for (uint32_t step = 1; step < part.groups; step *= 2)
        for (uint32_t g = 0; g + step < part.groups; g += 2 * step)
          for (uint32_t i = 0; i < count; ++i) sums[g][i] += sums[g + step][i];
      float* const out = part.out.row(row) + begin;
      for (uint32_t i = 0; i < count; ++i)
        out[i] = part.accumulate ? out[i] + sums[0][i] : sums[0][i];
    }
  });
}

}  // namespace muselet::cpu
