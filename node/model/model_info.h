// What is known of a model from its checkpoint's headers and the options it will run with.
#pragma once

#include "node/engine/engine_options.h"
#include "node/model/checkpoint.h"
#include "node/model/kv_cache.h"
#include "node/model/model.h"

namespace muselet {

// Whether the forward pass can compute the model; kInvalidArgument if not.
Status CheckComputable(const ModelConfig& config);

// All of ModelInfo but the bytes. The numerics id is the same for every way of sharding.
ModelInfo DescribeModel(const Checkpoint& checkpoint, const EngineOptions& options,
                        std::vector<KvGroupInfo> groups, const Ops& ops);

}  // namespace muselet
