// Rotary position embedding: the frequencies of one RopeSpec, and the angles of a step's rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/device/ops.h"
#include "node/model/model_config.h"

namespace muselet {

// rotary_dim / 2 frequencies in radians a position, rounded to f32 where Hugging Face rounds them:
// theta^(-2i / rotary_dim), then the scaling of modeling_rope_utils.py, then GGUF's divisors.
std::vector<float> RopeFrequencies(const RopeSpec& spec);

// Whether both turn every position by the same angles.
bool SameAngles(const RopeSpec& a, const RopeSpec& b);

// Writes cosine and sine [rows, frequencies]: of position * frequency, the product rounded to f32.
// A row's values depend on its position only.
void FillRopeAngles(std::span<const float> frequencies, std::span<const RowPlace> places,
                    float* cosine, float* sine);

}  // namespace muselet
