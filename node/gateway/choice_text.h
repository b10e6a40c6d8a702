// One choice's tokens on their way to the client: text that grows by whole characters, stop strings
// found, end tokens kept out of the text. Rebuilt by pushing the same tokens again.
//
// Owned by the request; loop thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "node/gateway/generation.h"
#include "node/text/detokenizer.h"
#include "node/text/tokenizer.h"

namespace muselet {

// How a request wants its answer's text to be made.
struct TextRules {
  std::vector<std::string> stop_strings;
  std::vector<TokenId> stop_token_ids;  // named by the client, as opposed to the model's own
  uint32_t min_tokens = 0;              // stop strings are not looked for before this many
  bool include_stop = false;            // the stop string or stop token stays in the text
  bool show_control_tokens = false;
};

class ChoiceText {
 public:
  // `tokenizer` may be null: then there is no text. It must outlive the object, as must `rules`.
  ChoiceText(const Tokenizer* tokenizer, const TextRules& rules, uint32_t choice);

  // Text that comes before the first token (echo).
  void Prepend(std::string text) { update_.text = std::move(text); }

  struct Outcome {
    ChoiceUpdate update;
    bool stopped = false;  // by a stop string: the rest of the tokens are not wanted
  };
  // The next tokens; `finish` is that of the last of them (or of the choice, if there are none).
  // REQUIRES: not finished before.
  Outcome Push(std::vector<SampledToken> tokens, FinishReason finish);

  bool finished() const { return finished_; }
  uint32_t tokens() const { return token_count_; }

 private:
  bool PushToken(SampledToken token, bool ends);
  void PushText(const std::string& text);
  void Flush();

  const TextRules& rules_;
  const Tokenizer* tokenizer_;
  std::optional<Detokenizer> detokenizer_;
  StopMatcher matcher_;
  uint32_t choice_;
  uint32_t token_count_ = 0;
  bool finished_ = false;
  ChoiceUpdate update_;  // being made
};

// The token with its own bytes and those of its alternatives, control tokens by their names.
// `tokenizer` may be null.
GeneratedToken Describe(const Tokenizer* tokenizer, SampledToken token);

}  // namespace muselet
