// Phi-3 and what is saved like it: Llama's decoder whose q, k, v and gate, up are one matrix each.
// After transformers' models/phi3 and llama.cpp's converter. The longrope scaling of the variants
// for 128k tokens is refused by name.
#pragma once

#include "node/model/architectures/architecture.h"

namespace muselet {

extern const Architecture kPhi3;

}  // namespace muselet
