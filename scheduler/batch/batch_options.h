// The knobs of continuous batching; keys, flags and documentation are in node/config/option_table.
#pragma once

#include <cstdint>

namespace muselet {

struct BatchOptions {
  uint32_t sequences_max = 64;       // running at once
  uint32_t waiting_max = 1024;       // admitted but not yet running; more are refused
  uint32_t step_tokens_max = 512;    // rows of one step, decodes and prefill chunks together
  uint32_t prefill_chunk_max = 256;  // rows of one prefill chunk
  // Prefill is cut so that a step with running decodes is predicted to last no longer than
  // step_stretch times what its decodes alone take (each further prompt in line adds as much), and
  // no longer than step_target_us.
  double step_stretch = 2.0;
  int64_t step_target_us = 120'000;
  int64_t step_max_us = 250'000;  // no step at all is predicted to last longer
  bool prefix_cache = true;
  uint32_t resume_tokens_min = 64;  // progress of a paused request before it may be paused again
};

}  // namespace muselet
