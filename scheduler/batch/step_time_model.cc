#include "scheduler/batch/step_time_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace muselet {
namespace {

constexpr double kPriorWeight = 1e-3;
constexpr double kNewest = 0.1;        // weight of the newest step in its class average
constexpr double kDrift = 0.25;        // weight of its error in the class's drift
constexpr double kDriftStepMax = 1.3;  // what one step can say of the drift, as a factor
constexpr double kCorrectionMax = 2;
constexpr double kSettled = 4;  // observations after which an average is trusted
constexpr double kOutlier = 2;  // times the average

using Matrix = std::array<std::array<double, 4>, 3>;  // the last column is the right-hand side

// Gauss elimination; the prior's ridge keeps the pivots away from zero.
std::array<double, 3> Solve(Matrix m) {
  for (int column = 0; column < 3; ++column) {
    int pivot = column;
    for (int row = column + 1; row < 3; ++row) {
      if (std::fabs(m[row][column]) > std::fabs(m[pivot][column])) pivot = row;
    }
    std::swap(m[column], m[pivot]);
    for (int row = column + 1; row < 3; ++row) {
      const double factor = m[row][column] / m[column][column];
      for (int k = column; k < 4; ++k) m[row][k] -= factor * m[column][k];
    }
  }
  std::array<double, 3> x{};
  for (int row = 2; row >= 0; --row) {
    double sum = m[row][3];
    for (int k = row + 1; k < 3; ++k) sum -= m[row][k] * x[k];
    x[row] = sum / m[row][row];
  }
  return x;
}

}  // namespace

StepLoad SliceLoad(uint32_t first_position, uint32_t row_count) {
  const double rows = row_count;
  return {rows, rows * first_position + rows * (rows + 1) / 2};
}

StepTimeModel::StepTimeModel(const Coefficients& prior) : prior_(prior), coefficients_(prior) {}

StepTimeModel::LoadClass& StepTimeModel::ClassOf(const StepLoad& load) {
  const auto index = static_cast<size_t>(std::ilogb(load.rows));
  return classes_[std::min(index, classes_.size() - 1)];
}

void StepTimeModel::Refute(const StepLoad& load, int64_t at_least_us) {
  if (load.rows < 1) return;
  if (static_cast<double>(at_least_us) <= kOutlier * PredictUs(load)) return;
  classes_ = {};
  ClassOf(load) = {1, load, static_cast<double>(at_least_us)};
  refuted_ = true;
  Fit();
}

void StepTimeModel::Observe(const StepLoad& load, int64_t step_us) {
  if (load.rows < 1 || step_us <= 0) return;
  if (std::exchange(refuted_, false)) classes_ = {};
  LoadClass& entry = ClassOf(load);
  auto observed_us = static_cast<double>(step_us);
  // A step that the machine held up says little of the next one. What stays slow is learned still.
  if (entry.weight >= kSettled) observed_us = std::min(observed_us, kOutlier * entry.step_us);
  if (entry.weight >= kSettled) {
    const double error =
        std::clamp(observed_us / PredictUs(load), 1 / kDriftStepMax, kDriftStepMax);
    entry.drift =
        std::clamp(entry.drift * std::pow(error, kDrift), 1 / kCorrectionMax, kCorrectionMax);
  }
  // The first few observations count alike, later ones fade.
  entry.weight = std::min(entry.weight + 1, 1 / kNewest);
  const double newest = 1 / entry.weight;
  entry.load.rows += newest * (load.rows - entry.load.rows);
  entry.load.context += newest * (load.context - entry.load.context);
  entry.step_us += newest * (observed_us - entry.step_us);
  Fit();
}

// On a machine, or with a model, that is much slower than the prior, only its proportions count:
// else a few measurements could not outweigh it.
double StepTimeModel::TimesThePrior() const {
  double sum = 0;
  double count = 0;
  for (const LoadClass& entry : classes_) {
    if (entry.weight == 0) continue;
    const double prior_us =
        prior_[0] + prior_[1] * entry.load.rows + prior_[2] * entry.load.context / 1024;
    sum += std::log(entry.step_us / prior_us);
    ++count;
  }
  return count == 0 ? 1 : std::max(std::exp(sum / count), 1.0);
}

void StepTimeModel::Fit() {
  Matrix normal{};
  const double slower = TimesThePrior();
  for (int i = 0; i < kFeatures; ++i) {
    const double prior = slower * prior_[i];
    const double scale = kPriorWeight / (prior * prior);
    normal[i][i] = scale;
    normal[i][3] = scale * prior;
  }
  for (const LoadClass& entry : classes_) {
    if (entry.weight == 0) continue;
    const std::array<double, 3> x = {1.0, entry.load.rows, entry.load.context / 1024};
    const double weight = 1 / (entry.step_us * entry.step_us);
    for (int i = 0; i < kFeatures; ++i) {
      for (int j = 0; j < kFeatures; ++j) normal[i][j] += weight * x[i] * x[j];
      normal[i][3] += weight * x[i] * entry.step_us;
    }
  }
  coefficients_ = Solve(normal);
  // Time never shrinks with work; noise may say so where only one size of step was seen.
  for (double& coefficient : coefficients_) coefficient = std::max(coefficient, 0.0);
  for (LoadClass& entry : classes_) {
    if (entry.weight == 0) continue;
    entry.correction = std::clamp(entry.step_us / std::max(FitUs(entry.load), 1.0),
                                  1 / kCorrectionMax, kCorrectionMax);
  }
}

double StepTimeModel::FitUs(const StepLoad& load) const {
  return coefficients_[0] + coefficients_[1] * load.rows + coefficients_[2] * load.context / 1024;
}

double StepTimeModel::Correction(double rows) const {
  const LoadClass* below = nullptr;
  for (const LoadClass& entry : classes_) {
    if (entry.weight == 0) continue;
    if (entry.load.rows >= rows) {
      if (below == nullptr || entry.load.rows == rows) return entry.factor();
      const double part =
          std::log2(rows / below->load.rows) / std::log2(entry.load.rows / below->load.rows);
      return below->factor() + part * (entry.factor() - below->factor());
    }
    below = &entry;
  }
  return below == nullptr ? 1 : below->factor();
}

bool StepTimeModel::measured() const {
  return std::any_of(classes_.begin(), classes_.end(),
                     [](const LoadClass& entry) { return entry.weight > 0; });
}

double StepTimeModel::PredictUs(const StepLoad& load) const {
  return FitUs(load) * Correction(std::max(load.rows, 1.0));
}

uint32_t StepTimeModel::RowsWithin(double limit_us, const StepLoad& load, uint32_t first_position,
                                   uint32_t row_max) const {
  uint32_t fits = 0;
  uint32_t above = row_max + 1;
  while (above - fits > 1) {
    const uint32_t middle = fits + (above - fits) / 2;
    const bool within = PredictUs(load + SliceLoad(first_position, middle)) <= limit_us;
    (within ? fits : above) = middle;
  }
  return fits;
}

}  // namespace muselet
