// What a checkpoint brings for text: its tokenizer and its chat template, loaded together.
//
// Immutable after loading; shared by the gateway's threads.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "node/model/checkpoint.h"
#include "node/text/chat_template.h"
#include "node/text/tokenizer.h"

namespace muselet {

struct TextModel {
  std::unique_ptr<Tokenizer> tokenizer;         // null: the checkpoint serves token ids only
  std::unique_ptr<ChatTemplate> chat_template;  // null: it has none
  std::string bos_token;                        // as templates see them; "" if there is none
  std::string eos_token;
};

// Faults are one line "file: field: problem". A template outside the supported language is a fault
// too, and so is a tokenizer with ids beyond the model's vocabulary: its prompts could not be
// computed. Fewer tokens than the model has rows are fine, see Tokenizer::TokenBytes.
Result<std::shared_ptr<const TextModel>> LoadTextModel(const Checkpoint& checkpoint);

}  // namespace muselet
