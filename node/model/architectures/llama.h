// Llama: pre-norm decoder, RMSNorm, grouped-query attention with RoPE on the whole head, gated SiLU
// FFN, tied or untied head. After transformers' models/llama and llama.cpp's converter.
#pragma once

#include "node/model/architectures/architecture.h"

namespace muselet {

extern const Architecture kLlama;

}  // namespace muselet
