// What the decoder-only families share: limits of sizes, the map of weight names.
#pragma once

#include <string_view>
#include <vector>

#include "node/model/model_config.h"
#include "node/model/tensor_table.h"

namespace muselet {

// Larger than any published model, small enough that products of two fit into 64 bits.
inline constexpr uint32_t kVocabMax = 1U << 24U;
inline constexpr uint32_t kWidthMax = 1U << 20U;  // hidden and FFN sizes
inline constexpr uint32_t kLayersMax = 1024;
inline constexpr uint32_t kHeadsMax = 4096;
inline constexpr uint32_t kHeadDimMax = 4096;
inline constexpr uint32_t kContextMax = 1U << 30U;

// The tensors of a pre-norm decoder with gated FFN: those that node/model/checkpoint.h lists.
std::vector<TensorSpec> DecoderTensors(const ModelConfig& config, TensorNaming naming);

}  // namespace muselet
