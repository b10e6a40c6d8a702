// Adding the partial sums of a product that was divided over ranks.
#pragma once

#include <span>

#include "base/device/ops.h"

namespace muselet::cpu {

// Row `row` of Ops::AddPartials.
void AddPartialsRow(std::span<const PartialSum> parts, const float* bias, uint32_t row, Rows out);

}  // namespace muselet::cpu
