// Any regular expression of a tokenizer.json, through Oniguruma (the engine that Hugging Face's
// tokenizers use), with limits on backtracking.
#include <oniguruma.h>

#include <algorithm>
#include <cctype>

#include "node/text/pre_tokenizer.h"
#include "node/text/utf8.h"

namespace muselet {
namespace {

constexpr size_t kPatternBytesMax = 16 * 1024;
constexpr unsigned kStackEntriesMax = 100'000;
constexpr unsigned long kRetriesInMatchMax = 1'000'000;
constexpr unsigned long kRetriesInSearchMax = 10'000'000;

std::string OnigMessage(int code, OnigErrorInfo* info) {
  UChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int size = onig_error_code_to_str(text, code, info);
  return std::string(reinterpret_cast<const char*>(text), static_cast<size_t>(std::max(size, 0)));
}

struct RegexFree {
  void operator()(regex_t* regex) const { onig_free(regex); }
};
struct RegionFree {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};
struct MatchParamFree {
  void operator()(OnigMatchParam* param) const { onig_free_match_param(param); }
};

struct Span {
  size_t begin, end;
  bool is_match;
};

// Hugging Face's NormalizedString::split over alternating matches and gaps.
void ApplyBehavior(std::string_view piece, const std::vector<Span>& spans, SplitBehavior behavior,
                   Pieces& out) {
  std::vector<Span> merged;
  bool previous_match = false;
  for (const Span& span : spans) {
    const bool extends =
        !merged.empty() &&
        ((behavior == SplitBehavior::kContiguous && span.is_match == previous_match) ||
         (behavior == SplitBehavior::kMergedWithPrevious && span.is_match && !previous_match) ||
         (behavior == SplitBehavior::kMergedWithNext && !span.is_match && previous_match));
    if (extends) {
      merged.back().end = span.end;
    } else if (!(behavior == SplitBehavior::kRemoved && span.is_match)) {
      merged.push_back(span);
    }
    previous_match = span.is_match;
  }
  for (const Span& span : merged) {
    if (span.end > span.begin) out.views.push_back(piece.substr(span.begin, span.end - span.begin));
  }
}

class RegexSplit : public PreTokenizer {
 public:
  RegexSplit(regex_t* regex, const SplitSpec& spec) : regex_(regex), spec_(spec) {}

  Status Split(std::string_view piece, Pieces& out) const override {
    const std::unique_ptr<OnigRegion, RegionFree> region(onig_region_new());
    const std::unique_ptr<OnigMatchParam, MatchParamFree> limits(onig_new_match_param());
    onig_initialize_match_param(limits.get());
    onig_set_match_stack_limit_size_of_match_param(limits.get(), kStackEntriesMax);
    onig_set_retry_limit_in_match_of_match_param(limits.get(), kRetriesInMatchMax);
    const auto* text = reinterpret_cast<const UChar*>(piece.data());
    const UChar* text_end = text + piece.size();
    onig_set_retry_limit_in_search_of_match_param(limits.get(), kRetriesInSearchMax);
    std::vector<Span> spans;
    size_t done = 0;
    size_t from = 0;
    while (from < piece.size()) {
      const int found = onig_search_with_param(regex_.get(), text, text_end, text + from, text_end,
                                               region.get(), ONIG_OPTION_NONE, limits.get());
      if (found == ONIG_MISMATCH) break;
      if (found < 0) {
        return InvalidArgument("the tokenizer's pattern " + Quoted(spec_.pattern) +
                               " gave up on this text: " + OnigMessage(found, nullptr));
      }
      const auto begin = static_cast<size_t>(region->beg[0]);
      const auto end = static_cast<size_t>(region->end[0]);
      if (end == begin) {
        if (begin >= piece.size())
          break;  // an empty match cuts nothing; go on behind the next character
        from = begin + DecodeUtf8(piece, begin).bytes;
        continue;
      }
      if (begin > done) spans.push_back({done, begin, spec_.invert});
      spans.push_back({begin, end, !spec_.invert});
      done = from = end;
    }
    if (done < piece.size()) spans.push_back({done, piece.size(), spec_.invert});
    ApplyBehavior(piece, spans, spec_.behavior, out);
    return OkStatus();
  }

 private:
  std::unique_ptr<regex_t, RegexFree> regex_;
  SplitSpec spec_;
};

std::string EscapeLiteral(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && !isalnum(static_cast<unsigned char>(c)))
      out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<PreTokenizer>> MakeRegexSplit(const SplitSpec& spec) {
  static const int initialized = [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    return onig_initialize(encodings, 1);
  }();
  if (initialized != ONIG_NORMAL) return Internal("Oniguruma does not start");
  if (spec.pattern.empty()) return InvalidArgument("empty pattern");
  if (spec.pattern.size() > kPatternBytesMax) {
    return InvalidArgument("pattern of " + std::to_string(spec.pattern.size()) +
                           " bytes; at most " + std::to_string(kPatternBytesMax) +
                           " are supported");
  }
  const std::string pattern = spec.is_literal ? EscapeLiteral(spec.pattern) : spec.pattern;
  const auto* begin = reinterpret_cast<const UChar*>(pattern.data());
  regex_t* regex = nullptr;
  OnigErrorInfo info;
  const int code = onig_new(&regex, begin, begin + pattern.size(), ONIG_OPTION_NONE,
                            ONIG_ENCODING_UTF8, ONIG_SYNTAX_RUBY, &info);
  if (code != ONIG_NORMAL) {
    return InvalidArgument("pattern " + Quoted(spec.pattern) +
                           " does not compile: " + OneLine(OnigMessage(code, &info)));
  }
  return {std::make_unique<RegexSplit>(regex, spec)};
}

}  // namespace muselet
