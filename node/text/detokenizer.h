// Token ids of one running answer to text, as they come: never half a character, and text that may
// be the beginning of a stop string is held back until it is known not to be.
//
// One object per choice, owned by whoever owns the request; not thread-safe. All state can be
// rebuilt by pushing the same ids again.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "node/text/tokenizer.h"

namespace muselet {

class Detokenizer {
 public:
  // `tokenizer` must outlive the object. Control tokens are left out unless `show_control_tokens`.
  Detokenizer(const Tokenizer& tokenizer, bool show_control_tokens);

  // The text that became complete with this id; may be empty. Bytes that can never become valid
  // UTF-8 are given as U+FFFD, as Hugging Face's decoders do.
  std::string Push(TokenId id);
  // What is left at the end: an incomplete character becomes U+FFFD.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  bool show_control_tokens_;
  std::string pending_;  // the bytes of an incomplete character
};

// Finds the first of several stop strings in a text that comes in pieces.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stop_strings);

  struct Output {
    std::string text;         // safe to show
    bool stopped = false;     // a stop string was found; nothing may follow
    std::string stop_string;  // which one
  };
  // `include_stop` keeps the stop string in the text.
  Output Push(std::string_view text, bool include_stop);
  // Releases what was held back.
  std::string Finish();

 private:
  std::vector<std::string> stop_strings_;
  std::string held_;
};

}  // namespace muselet
