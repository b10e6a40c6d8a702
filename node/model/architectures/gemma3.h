// Gemma 3's text model: norms before and after attention and feed-forward, whose weights are
// offsets from 1, norms of q and k heads, GELU, scaled embeddings, local layers with a window and a
// rotation of their own. After transformers' models/gemma3 and llama.cpp's converter, which adds
// the 1 to the weights and knows no query_pre_attn_scalar but the head size.
#pragma once

#include "node/model/architectures/architecture.h"

namespace muselet {

extern const Architecture kGemma3;

}  // namespace muselet
