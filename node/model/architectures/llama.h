// Llama: pre-norm decoder, RMSNorm, grouped-query attention with RoPE on the whole head, gated SiLU
// FFN, tied or untied head. Mistral: the same with a sliding window. Mixtral: the same with
// experts. After transformers' models/llama, mistral, mixtral and llama.cpp's converter, which
// calls all three llama.
#pragma once

#include "node/model/architectures/architecture.h"

namespace muselet {

extern const Architecture kLlama;
extern const Architecture kMistral;
extern const Architecture kMixtral;

// Tensors that change nothing: the head's copy of a tied embedding, and rotation frequencies that
// early converters stored.
bool IgnoresCopies(std::string_view name);

}  // namespace muselet
