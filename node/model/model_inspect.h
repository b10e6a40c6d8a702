// What `muselet model inspect PATH` says of a checkpoint, from headers alone: no weight is read
// but for the samples of the digest.
#pragma once

#include <string>

#include "node/model/checkpoint.h"

namespace muselet {

// A table for people, one field a line, ending in a newline.
std::string InspectText(const Checkpoint& checkpoint);
// The same as one JSON object in one line, sizes as numbers, without a newline.
std::string InspectJson(const Checkpoint& checkpoint);

}  // namespace muselet
