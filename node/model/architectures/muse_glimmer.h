// Muse Glimmer, its text part: three of four layers slide and rotate, every fourth (counted from
// the last) attends to all without a position code; normed embeddings and heads, an output gate,
// centred norms before and after attention and feed-forward, capped logits. After transformers'
// models/muse_glimmer. The part that sees is skipped.
#pragma once

#include "node/model/architectures/architecture.h"

namespace muselet {

extern const Architecture kMuseGlimmer;

}  // namespace muselet
