// Builds the Model that computes a checkpoint on the CPU backend: prepares (repacks) the weights,
// sizes the KV cache.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "node/engine/engine_options.h"
#include "node/model/checkpoint.h"
#include "node/model/model.h"

namespace muselet {

// Called now and then while loading, on the loading thread.
using LoadProgress = std::function<void(uint64_t bytes_done, uint64_t bytes_total)>;

// The checkpoint may be destroyed afterwards unless the returned Model keeps views into it; it is
// shared for that reason. kInvalidArgument for a combination that cannot be computed,
// kResourceExhausted if weights and KV cache do not fit.
Result<std::unique_ptr<Model>> LoadModel(std::shared_ptr<const Checkpoint> checkpoint,
                                         const EngineOptions& options,
                                         const LoadProgress& progress);

}  // namespace muselet
