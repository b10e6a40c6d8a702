// The fields that configs of decoder-only families share, and their checks. Every fault reads
// "file: field: problem".
#pragma once

#include <string_view>

#include "base/status.h"
#include "node/model/gguf_fields.h"
#include "node/model/json_fields.h"
#include "node/model/model_config.h"

namespace muselet {

// Larger than any published model, small enough that products of two fit into 64 bits.
inline constexpr uint32_t kVocabMax = 1U << 24U;
inline constexpr uint32_t kWidthMax = 1U << 20U;  // hidden and FFN sizes
inline constexpr uint32_t kLayersMax = 1024;
inline constexpr uint32_t kHeadsMax = 4096;
inline constexpr uint32_t kHeadDimMax = 4096;
inline constexpr uint32_t kContextMax = 1U << 30U;
inline constexpr uint32_t kExpertsMax = 4096;

// Sizes, activation, head and rotation of a Hugging Face config; all layers equal, without biases.
// `head_dim_default`: where the config is silent; 0 = hidden_size / num_attention_heads.
Result<ModelConfig> HuggingFaceDecoder(const JsonFields& config, std::string_view architecture,
                                       uint32_t head_dim_default = 0);
// The same without the rotation, for families whose layers differ in it.
Result<ModelConfig> HuggingFaceSizes(const JsonFields& config, std::string_view architecture,
                                     uint32_t head_dim_default = 0);
// The same of GGUF metadata, its rotation in `layout`.
Result<ModelConfig> GgufDecoder(const GgufFields& config, std::string_view architecture,
                                RopeLayout layout);
Result<ModelConfig> GgufSizes(const GgufFields& config, std::string_view architecture);

// The activation in `field`, which may be absent.
Result<Activation> HuggingFaceActivation(const JsonFields& config, std::string_view field,
                                         std::string_view fallback);

// Windows: "sliding_window" for the layers that "layer_types" calls sliding_attention, or for all
// layers if there are no types. `window_default` where "sliding_window" is absent; null is none.
Status ReadWindows(const JsonFields& config, uint32_t window_default, ModelConfig& model);

// Whether entry `layer` of "layer_types" is sliding_attention; `fallback` if there are none.
// kInvalidArgument for other kinds, or another number than `layers`.
Result<bool> IsSliding(const JsonFields& config, size_t layer, size_t layers, bool fallback);

// "expert_count" and what follows from it, for all layers; the size of one expert stands in
// `expert_size` if it is there, else that of the dense layer stays.
Status ReadGgufExperts(const GgufFields& config, ModelConfig& model);

// kInvalidArgument if a field says something that changes the model and is not computed.
Status RefuseIfSet(const ConfigFields& config, std::string_view field);

}  // namespace muselet
