#include "node/simulate/measure.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "node/model/checkpoint.h"
#include "node/model/load_model.h"

namespace muselet {
namespace {

constexpr int kRepeats = 5;
// Around the model's own work: planning, sampling, handing over.
constexpr double kHostUs = 150;

class Stopwatch {
 public:
  explicit Stopwatch(Model& model) : model_(model) {}

  // The median time of a step of `slices` sequences with `rows` rows each from `position` on.
  double StepUs(uint32_t slices, uint32_t rows, uint32_t position) {
    if (!fault_.ok()) return 0;
    const StepPlan plan = MakePlan(slices, rows, position);
    std::vector<int64_t> times_us;
    for (int i = 0; i <= kRepeats && fault_.ok(); ++i) {
      const int64_t began_us = Clock::Real().NowUs();
      const auto logits = model_.Forward(plan);
      if (!logits.ok()) fault_ = logits.status();
      if (i > 0) times_us.push_back(Clock::Real().NowUs() - began_us);  // the first one warms up
    }
    if (times_us.empty()) return 0;
    std::nth_element(times_us.begin(), times_us.begin() + times_us.size() / 2, times_us.end());
    return static_cast<double>(times_us[times_us.size() / 2]);
  }
  const Status& fault() const { return fault_; }

 private:
  StepPlan MakePlan(uint32_t slices, uint32_t rows, uint32_t position) const {
    const ModelInfo& info = model_.info();
    StepPlan plan;
    plan.number = 1;
    const uint32_t blocks = (position + rows - 1) / info.block_tokens + 1;
    for (uint32_t i = 0; i < slices; ++i) {
      SequenceSlice slice;
      slice.slot = i;
      slice.first_position = position;
      slice.row_begin = i * rows;
      slice.row_count = rows;
      slice.logits_rows = 1;
      slice.samples = true;
      for (const KvGroupInfo& group : info.kv_groups) {
        slice.table_begin.push_back(static_cast<uint32_t>(plan.block_tables.size()));
        slice.table_count.push_back(blocks);
        for (uint32_t b = 0; b < blocks; ++b)
          plan.block_tables.push_back((i * blocks + b) % std::max(group.block_count, 1U));
      }
      plan.slices.push_back(slice);
      for (uint32_t row = 0; row < rows; ++row)
        plan.tokens.push_back(static_cast<TokenId>((i * 31 + row * 7 + 1) % info.vocab_size));
    }
    return plan;
  }

  Model& model_;
  Status fault_;
};

}  // namespace

Result<Calibration> MeasureSteps(const std::string& path, const EngineOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> opened, Checkpoint::Open(path));
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> model,
                   LoadModel(std::shared_ptr<const Checkpoint>(std::move(opened)), options,
                             [](uint64_t, uint64_t) {}));
  const ModelInfo& info = model->info();
  Calibration calibration;
  calibration.source = path + ", measured";
  calibration.context_tokens = info.context_tokens;
  calibration.kv_tokens = uint64_t{info.kv_groups.front().block_count} * info.block_tokens;

  Stopwatch watch(*model);
  const uint32_t far = std::min<uint32_t>(1024, info.context_tokens / 2);
  const uint32_t chunk = std::min<uint32_t>(options.batch.prefill_chunk_max, far / 2);
  const uint32_t half = std::max<uint32_t>(1, chunk / 2);
  const double near_us = watch.StepUs(1, half, 0);
  const double far_us = watch.StepUs(1, half, far);
  const double whole_us = watch.StepUs(1, chunk, 0);
  const double one_us = watch.StepUs(1, 1, 0);
  const uint32_t several =
      std::max<uint32_t>(2, std::min<uint32_t>(8, options.batch.sequences_max));
  const double several_us = watch.StepUs(several, 1, 0);
  const double together_us = watch.StepUs(1, several, 0);
  RETURN_IF_ERROR(watch.fault());

  StepCost& cost = calibration.cost;
  cost.host_us = kHostUs;
  cost.context_us = std::max(0.0, (far_us - near_us) / (half * static_cast<double>(far)) * 1024);
  const double own_context = SliceLoad(0, chunk).context - SliceLoad(0, half).context;
  cost.row_us = std::max(0.0, (whole_us - near_us - own_context / 1024 * cost.context_us) /
                                  std::max(1U, chunk - half));
  cost.logits_us = std::max(0.0, (several_us - together_us) / (several - 1));
  cost.weights_us = std::max(0.0, one_us - cost.logits_us);
  return calibration;
}

}  // namespace muselet
