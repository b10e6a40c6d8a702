// Qwen2 and Qwen2.5: Llama's decoder with biases on q, k and v. Qwen3: without them, with a norm of
// every head of q and k. Qwen3-MoE: that with experts. After transformers' models/qwen2, qwen3,
// qwen3_moe and llama.cpp's converter.
#pragma once

#include "node/model/architectures/architecture.h"

namespace muselet {

extern const Architecture kQwen2;
extern const Architecture kQwen3;
extern const Architecture kQwen3Moe;

}  // namespace muselet
