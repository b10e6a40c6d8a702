// Byte-level BPE as GPT-2, Llama 3, Qwen and SmolLM use it: what tokenizer.json and GGUF readers
// fill in, and the Tokenizer that comes of it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "node/text/added_tokens.h"
#include "node/text/pre_tokenizer.h"
#include "node/text/tokenizer.h"
#include "node/text/vocabulary.h"

namespace muselet {

// What the file calls the parts, for faults.
struct BpeFieldNames {
  std::string_view vocab = "model.vocab";
  std::string_view merges = "model.merges";
  std::string_view added = "added_tokens";
  std::string_view unk = "model.unk_token";
  std::string_view bos = "post_processor";
};

struct BpeSpec {
  // Views live until BuildBpeTokenizer returns. Spelled in the alphabet of node/text/byte_level.h.
  std::vector<Vocabulary::Entry> pieces;
  std::vector<std::pair<std::string_view, std::string_view>> merges;  // by rank
  std::vector<AddedToken> added;  // may repeat pieces, or add ids
  std::vector<std::unique_ptr<PreTokenizer>> pre_tokenizers;
  bool nfc = false;            // the text is brought to NFC before it is cut
  bool ignore_merges = false;  // a word that is a piece is that piece, whatever merges give
  std::string unk_piece;       // for bytes that are no piece; "" = they are dropped
  bool fuse_unk = false;       // neighbouring unknown bytes make one token
  std::optional<TokenId> bos;
  bool adds_bos = false;
  BpeFieldNames names;
};

// kInvalidArgument naming the field in the file's terms ("model.merges[7]: ...").
Result<std::unique_ptr<Tokenizer>> BuildBpeTokenizer(BpeSpec spec);

}  // namespace muselet
