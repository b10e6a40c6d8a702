// What the decoder-only families share: limits of sizes, RoPE fields, the map of weight names.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "node/model/gguf_fields.h"
#include "node/model/model_config.h"
#include "node/model/tensor_table.h"

namespace muselet {

class JsonFields;

// Larger than any published model, small enough that products of two fit into 64 bits.
inline constexpr uint32_t kVocabMax = 1U << 24U;
inline constexpr uint32_t kWidthMax = 1U << 20U;  // hidden and FFN sizes
inline constexpr uint32_t kLayersMax = 1024;
inline constexpr uint32_t kHeadsMax = 4096;
inline constexpr uint32_t kHeadDimMax = 4096;
inline constexpr uint32_t kContextMax = 1U << 30U;

// RoPE of a Hugging Face config: `rope_parameters`, or the older `rope_theta` and `rope_scaling`.
// Layout halves. REQUIRES: head_dim is even.
Result<RopeSpec> HuggingFaceRope(const JsonFields& config, uint32_t head_dim,
                                 uint32_t context_tokens);

// RoPE of GGUF metadata and of the tensor rope_freqs.weight, in the layout given.
Result<RopeSpec> GgufRope(const GgufFields& config, uint32_t head_dim, RopeLayout layout);

// The tensors of a pre-norm decoder with gated FFN: those that node/model/checkpoint.h lists.
std::vector<TensorSpec> DecoderTensors(const ModelConfig& config, TensorNaming naming);

}  // namespace muselet
