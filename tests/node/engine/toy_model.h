// A Model that computes in microseconds: logits are a function of the hash of all tokens so far,
// read back from real block tables (tests/scheduler/batch/toy_kv.h).
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "node/model/model.h"
#include "tests/scheduler/batch/toy_kv.h"

namespace muselet::testing {

class ToyModel final : public Model {
 public:
  explicit ToyModel(uint32_t vocab_size = 64, uint32_t block_count = 64, uint32_t context = 256)
      : kv_({16, {{block_count, 0}}}, vocab_size) {
    info_.architecture = "toy";
    info_.model_digest = "00";
    info_.numerics_id = "toy";
    info_.vocab_size = vocab_size;
    info_.context_tokens = context;
    info_.block_tokens = 16;
    info_.kv_groups = {{block_count, 0}};
  }

  const ModelInfo& info() const override { return info_; }
  Result<std::span<const float>> Forward(const StepPlan& plan) override {
    if (before_forward) before_forward();
    if (fault.load()) return Internal("the device is gone");
    logits_.clear();
    for (const uint64_t state : kv_.Run(plan)) {
      for (uint32_t id = 0; id < info_.vocab_size; ++id) {
        logits_.push_back(static_cast<float>(Mix(state, id) % 1000) * 0.01F);
      }
    }
    return std::span<const float>(logits_);
  }

  std::function<void()> before_forward;  // on the step thread
  std::atomic<bool> fault = false;

 private:
  ModelInfo info_;
  ToyKv kv_;
  std::vector<float> logits_;
};

}  // namespace muselet::testing
