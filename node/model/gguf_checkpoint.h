// A GGUF file as a Checkpoint.
#pragma once

#include <memory>
#include <string>

#include "node/model/checkpoint.h"

namespace muselet {

// See Checkpoint::Open.
Result<std::unique_ptr<Checkpoint>> OpenGgufCheckpoint(const std::string& path);

}  // namespace muselet
