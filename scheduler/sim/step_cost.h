// How long a step takes on a device, without the device: a roofline. A step reads all weights once,
// however many rows it has, and computes each row; the larger of the two counts, and what reading
// the KV cache and the way through the host take comes on top:
//
//   time = host_us + max(weights_us, rows * row_us) + sampled * logits_us
//          + context / 1024 * context_us
//
// with `sampled` the rows that need logits, and `context` the positions that all rows attend
// together. Plain value.
#pragma once

#include <algorithm>

#include "scheduler/batch/step_time_model.h"

namespace muselet {

struct StepCost {
  double host_us = 500;
  double weights_us = 10'000;
  double row_us = 100;
  double logits_us = 50;
  double context_us = 100;

  double Us(const StepLoad& load, double sampled) const {
    return host_us + std::max(weights_us, load.rows * row_us) + sampled * logits_us +
           load.context / 1024 * context_us;
  }
};

}  // namespace muselet
