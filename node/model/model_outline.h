// The sizes of a model for planning: from a checkpoint, or from a config.json alone, also of
// architectures that cannot be computed here.
#pragma once

#include <optional>
#include <string>

#include "node/model/model_config.h"
#include "node/model/shard_plan.h"

namespace muselet {

// Only what shard_plan and memory_plan read is filled.
struct ModelOutline {
  ModelConfig config;
  WeightFormat format;  // keeps what it needs
};

// `path` is a checkpoint, a config.json or a directory with one. `weights`: the format of all
// matrices instead of what the files say. Faults name file and field.
Result<ModelOutline> ReadModelOutline(const std::string& path, std::optional<DType> weights);

// "q4_1" and so on; nothing for a name that no format has.
std::optional<DType> ParseDType(std::string_view name);

}  // namespace muselet
