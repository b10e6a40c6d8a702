// Cuts a text into the pieces that byte-pair merges stay within, as Hugging Face's pre-tokenizers
// do. Several run one after the other, each over the pieces of the one before.
//
// The patterns of the published tokenizers are cut by hand-written scanners in one pass; any other
// regular expression goes through Oniguruma with limits.
//
// Immutable; any thread may call Split.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace muselet {

// Pieces of a text, in order, none empty. Views point into the caller's text or into `owned` (where
// a step changed the text).
struct Pieces {
  std::vector<std::string_view> views;
  std::deque<std::string> owned;
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Appends the pieces of `piece`, valid UTF-8 and not empty, to `out`. kInvalidArgument if a
  // pattern exceeds its limits on this text.
  virtual Status Split(std::string_view piece, Pieces& out) const = 0;
};

// What becomes of the matches of a pattern (Hugging Face's SplitDelimiterBehavior).
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitSpec {
  std::string pattern;
  bool is_literal = false;  // a plain string instead of a regular expression
  bool invert = false;      // pattern matches what is between the delimiters
  SplitBehavior behavior = SplitBehavior::kIsolated;
};

// The pattern of GPT-2's byte-level pre-tokenizer.
extern const std::string_view kGpt2Pattern;
// Llama 3's; and Qwen 2's, which differs in taking digits one by one.
extern const std::string_view kLlama3Pattern;
extern const std::string_view kQwen2Pattern;

// A scanner if the pattern is one of the above, else a regular expression. kInvalidArgument with
// the pattern if it does not compile.
Result<std::unique_ptr<PreTokenizer>> MakeSplit(const SplitSpec& spec);
// The regular expression engine, also for the known patterns (tests compare the two).
Result<std::unique_ptr<PreTokenizer>> MakeRegexSplit(const SplitSpec& spec);
// Numbers (\p{N}) apart from the rest; each on its own, or in runs.
std::unique_ptr<PreTokenizer> MakeDigitSplit(bool individual);
// Puts a space before a piece that does not begin with one.
std::unique_ptr<PreTokenizer> MakePrefixSpace();

}  // namespace muselet
