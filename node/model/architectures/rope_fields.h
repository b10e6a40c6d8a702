// Rotary position embedding in the words of the two formats. Every fault reads "file: field:
// problem"; a kind of scaling that is not implemented is refused by its name, never ignored.
#pragma once

#include "base/status.h"
#include "node/model/gguf_fields.h"
#include "node/model/model_config.h"

namespace muselet {

class JsonFields;

// RoPE of a Hugging Face config: transformers 5's `rope_parameters`, or `rope_theta` and
// `rope_scaling` of the releases before, whose `type` is `rope_type` today. What is said twice must
// agree: which of the two a trainer meant cannot be known. Layout halves. `partial`: heads may be
// rotated in part (partial_rotary_factor). REQUIRES: head_dim is even.
Result<RopeSpec> HuggingFaceRope(const JsonFields& config, uint32_t head_dim,
                                 uint32_t context_tokens, bool partial = false);

// Of one object with the fields of rope_parameters, for layers of one type.
Result<RopeSpec> HuggingFaceRopeObject(const JsonFields& fields, uint32_t head_dim,
                                       uint32_t context_tokens, double theta_default);

// RoPE of GGUF metadata and of the tensor rope_freqs.weight, in the layout given.
Result<RopeSpec> GgufRope(const GgufFields& config, uint32_t head_dim, RopeLayout layout);

}  // namespace muselet
