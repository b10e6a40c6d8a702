// Finds added tokens ("<|im_end|>") in text, as Hugging Face's AddedVocabulary does: leftmost, then
// longest; a token may swallow the white space beside it or ask to stand as a word of its own.
//
// Immutable after building; any thread may call Find.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "node/text/tokenizer.h"

namespace muselet {

struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool special = false;  // a control token
  bool normalized = false;
  bool lstrip = false;
  bool rstrip = false;
  bool single_word = false;
};

// A stretch of text that is one added token (id >= 0) or ordinary text (id -1).
struct TextSection {
  size_t begin = 0;
  size_t end = 0;
  TokenId id = -1;
};

class AddedTokenMatcher {
 public:
  // Tokens with empty content never match.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Sections of `text` (valid UTF-8) in order, none empty. Special tokens are not found where they
  // overlap `untrusted`, nor anywhere if `special` is kAsText.
  std::vector<TextSection> Find(std::string_view text, SpecialTokens special,
                                std::span<const TextRange> untrusted) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> children;  // few: looked through in order
    int32_t token = -1;                                        // index into tokens_
  };
  // Index of the longest token at `begin`, -1 for none. With `trusted_end`, special tokens that end
  // beyond it do not count.
  int32_t LongestAt(std::string_view text, size_t begin, size_t trusted_end) const;
  TextSection Widen(std::string_view text, const AddedToken& token, size_t begin,
                    size_t not_before) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::bitset<256> first_bytes_;
};

}  // namespace muselet
