// Text to token ids and back, identical to Hugging Face's `tokenizers` for the tokenizers that
// load.
//
// Immutable after loading; any thread may call.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace muselet {

class GgufFile;

// A stretch of bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

// How control tokens that appear in the text are read. Text that a user typed must never become a
// control token.
enum class SpecialTokens { kAsText, kParse };

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of `text`, which must be valid UTF-8 (kInvalidArgument otherwise). No BOS is added. Within
  // `untrusted` (ascending, not overlapping) nothing is read as a control token, whatever `special`
  // says; elsewhere merges go across the borders of the ranges as if they were not there.
  virtual Result<std::vector<TokenId>> Encode(std::string_view text, SpecialTokens special,
                                              std::span<const TextRange> untrusted = {}) const = 0;

  // The bytes that the token stands for: "" for control tokens. Concatenated over a sequence they
  // are its text, which is valid UTF-8 only at character borders: see node/text/detokenizer.h.
  // Unknown ids give "": a model may have more rows than its tokenizer has tokens (embeddings are
  // padded to round sizes), and as in transformers and vLLM such a row may be drawn if its logit
  // wins, counts as a token, and adds nothing to the text.
  virtual std::string_view TokenBytes(TokenId id) const = 0;
  // As TokenBytes, but control tokens give their own text ("<|im_end|>").
  virtual std::string_view TokenText(TokenId id) const = 0;
  virtual bool IsControl(TokenId id) const = 0;

  virtual uint32_t vocab_size() const = 0;
  virtual std::optional<TokenId> bos() const = 0;
  virtual bool adds_bos() const = 0;  // whether plain prompts begin with BOS
  // The id of a piece by its exact text, e.g. "<|im_end|>".
  virtual std::optional<TokenId> FindToken(std::string_view text) const = 0;
};

// From the text of a tokenizer.json (and, if there is one, tokenizer_config.json: "" for none).
// kInvalidArgument "directory/tokenizer.json: field: problem" in one line; without a directory, the
// file's name alone.
Result<std::unique_ptr<Tokenizer>> LoadHuggingFaceTokenizer(std::string_view tokenizer_json,
                                                            std::string_view tokenizer_config_json,
                                                            std::string_view directory = "");
// From a GGUF's tokenizer.ggml.* metadata. Faults as above, with the file's path and its keys.
Result<std::unique_ptr<Tokenizer>> LoadGgufTokenizer(const GgufFile& file);

}  // namespace muselet
