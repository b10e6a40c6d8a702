// Predicts how long a step will take, from the steps that were measured:
//
//   time = base + row_us * rows + context_us * (positions attended by all rows) / 1024
//
// Measured steps are averaged in classes by their row count (a class a power of two), so that many
// small steps do not wash out what the rare large ones taught. The three coefficients are the ridge
// least-squares fit of relative errors over the class averages. What is left of the error in each
// class (one row is bound by memory, many by arithmetic) is taken into account between the measured
// sizes by linear interpolation over log2(rows). So is the drift of a class, which follows the
// newest steps faster than its average does: a prompt's rows cost more from step to step.
// A step that was broken off tells how long it takes at least (Refute).
// Deterministic; sees no clock.
#pragma once

#include <array>
#include <cstdint>

namespace muselet {

// The size of a step, as far as its time depends on it.
struct StepLoad {
  double rows = 0;
  double context = 0;  // sum over rows of the positions that the row attends
  StepLoad operator+(const StepLoad& other) const {
    return {rows + other.rows, context + other.context};
  }
};
// Rows [first_position, first_position + row_count) of one sequence.
StepLoad SliceLoad(uint32_t first_position, uint32_t row_count);

class StepTimeModel {
 public:
  // Base, row_us and context_us.
  using Coefficients = std::array<double, 3>;
  // Before anything was measured: cautious for a CPU, corrected by the first steps. Of whole steps,
  // and of rows that join a step.
  static constexpr Coefficients kWholeSteps = {2'000.0, 500.0, 20.0};
  static constexpr Coefficients kAddedRows = {100.0, 1'000.0, 20.0};

  explicit StepTimeModel(const Coefficients& prior = kWholeSteps);
  void Observe(const StepLoad& load, int64_t step_us);
  // A step took at least so long, and was broken off. If that is far beyond its prediction,
  // everything that was measured is forgotten: predictions follow from this step until one has been
  // measured to its end. Otherwise it says nothing.
  void Refute(const StepLoad& load, int64_t at_least_us);
  double PredictUs(const StepLoad& load) const;
  // Some step was observed, or refuted: predictions are no mere guess.
  bool measured() const;
  // The most rows, at most `row_max`, of a slice from `first_position` on top of `load` that keep
  // the prediction within `limit_us`.
  uint32_t RowsWithin(double limit_us, const StepLoad& load, uint32_t first_position,
                      uint32_t row_max) const;

 private:
  static constexpr int kFeatures = 3;
  struct LoadClass {
    double weight = 0;  // 0 until observed
    StepLoad load;
    double step_us = 0;
    double correction = 1;  // measured over fitted, averages
    double drift = 1;       // newest measured over predicted: where contexts grow, averages lag
    double factor() const { return correction * drift; }
  };
  LoadClass& ClassOf(const StepLoad& load);
  double TimesThePrior() const;
  void Fit();
  double FitUs(const StepLoad& load) const;
  // Of the classes next to this many rows.
  double Correction(double rows) const;

  std::array<LoadClass, 20> classes_;
  const Coefficients prior_;
  Coefficients coefficients_;
  bool refuted_ = false;  // the one class there is holds a step that was broken off
};

}  // namespace muselet
