// A loaded model that computes steps: the seam between the step loop (node/engine) and everything
// numeric (node/model, node/cpu, cuda).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"
#include "scheduler/batch/step_plan.h"

namespace muselet {

// What the batcher must know of one KV group (layers with one retention rule).
struct KvGroupInfo {
  uint32_t block_count = 0;    // physical blocks in this group's storage
  uint32_t window_tokens = 0;  // 0 = every position is kept
};

struct ModelInfo {
  std::string architecture;  // "llama"
  std::string model_digest;  // hex; names the weights
  std::string
      numerics_id;  // DESIGN: backend, reduction layout, weight / activation / KV formats, strict
  uint32_t vocab_size = 0;
  uint32_t context_tokens = 0;  // the longest sequence, limited by config and checkpoint
  uint32_t block_tokens = 16;   // positions in a KV block
  std::vector<KvGroupInfo> kv_groups;
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t parameter_count = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;

  // Computes one step: writes KV for every row, and returns logits [R, vocab_size] f32 for the R
  // rows that the plan's slices name by logits_rows, in slice order then row order. The span is
  // valid until the next call. REQUIRES: every token id in [0, vocab_size), block tables as
  // StepPlan says. Step thread only.
  virtual Result<std::span<const float>> Forward(const StepPlan& plan) = 0;
};

}  // namespace muselet
