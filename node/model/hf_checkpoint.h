// A Hugging Face directory as a Checkpoint.
#pragma once

#include <memory>
#include <string>

#include "node/model/checkpoint.h"

namespace muselet {

// See Checkpoint::Open. Read if present: generation_config.json, tokenizer.json,
// tokenizer_config.json, chat_template.jinja (which outranks tokenizer_config.json's template).
Result<std::unique_ptr<Checkpoint>> OpenHuggingFaceCheckpoint(const std::string& directory);

}  // namespace muselet
