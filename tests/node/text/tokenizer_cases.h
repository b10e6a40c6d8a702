// Reads the stored tokenizer cases of ../shared/data/tokenizers and files whole.
#pragma once

#include <string>
#include <vector>

#include "base/types.h"

namespace muselet::testing {

struct TokenizerCase {
  std::string text;
  std::vector<TokenId> ids;          // without BOS
  std::vector<TokenId> ids_special;  // with BOS if the tokenizer adds one
  std::string decoded;               // ids, control tokens shown
  std::string decoded_skip_special;  // ids_special, control tokens left out
};

std::vector<TokenizerCase> ReadTokenizerCases(const std::string& path);
std::string ReadFile(const std::string& path);

}  // namespace muselet::testing
