// A prompt of a client to token ids: template, control tokens, BOS. Pure functions of the model's
// text side; any thread.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "node/gateway/generation.h"

namespace muselet {

struct TextModel;
class Tokenizer;

using PromptVariant = std::variant<ChatPrompt, TextPrompt, TokenPrompt>;

struct PreparedPrompt {
  std::vector<TokenId> ids;
  std::string text;  // what echo shows
};

// Null if the model has none.
const Tokenizer* TokenizerOf(const TextModel* text);
bool HasChatTemplate(const TextModel* text);

// Bytes of text in the prompt: what its preparation costs.
size_t PromptBytes(const PromptVariant& prompt);
// The request field that holds the prompt, for errors.
std::string PromptParam(const PromptVariant& prompt);

// `text` may be null: then only token ids are a prompt. `now_unix_us` is what the template's clock
// shows. kInvalidArgument names what is wrong with the prompt; nothing is checked against the
// model's sizes.
Result<PreparedPrompt> PreparePrompt(const TextModel* text, const PromptVariant& prompt,
                                     int64_t now_unix_us);

// The text of `ids`, control tokens included if `show_control_tokens`.
std::string TextOf(const Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                   bool show_control_tokens);

}  // namespace muselet
