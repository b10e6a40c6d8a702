// Hand-written scanners for the patterns of published tokenizers. Each position is looked at a
// bounded number of times, so a text of one repeated character costs linear time.
#include <algorithm>

#include "node/text/pre_tokenizer.h"
#include "node/text/utf8.h"

namespace muselet {

const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

bool IsNewline(char c) {
  return c == '\r' || c == '\n';
}

// Reads one piece of a text.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool AtEnd(size_t i) const { return i >= text_.size(); }
  char ByteAt(size_t i) const { return AtEnd(i) ? '\0' : text_[i]; }
  bool Is(size_t i, CharClass wanted) const {
    return !AtEnd(i) && ClassOf(DecodeUtf8(text_, i).code) == wanted;
  }
  size_t After(size_t i) const { return i + DecodeUtf8(text_, i).bytes; }
  // The end of the run of `wanted` that begins at i, at most `count_max` characters.
  size_t RunEnd(size_t i, CharClass wanted, size_t count_max = SIZE_MAX) const {
    for (; count_max > 0 && !AtEnd(i); --count_max) {
      const DecodedChar c = DecodeUtf8(text_, i);
      if (ClassOf(c.code) != wanted) break;
      i += c.bytes;
    }
    return i;
  }

  // 's 't 're 've 'm 'll 'd at i: its end, or i. Without case, the long s counts as an s.
  size_t ContractionEnd(size_t i, bool any_case) const {
    if (ByteAt(i) != '\'') return i;
    const auto lower = [&](size_t at) {
      const char c = ByteAt(at);
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    };
    const char first = lower(i + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return i + 2;
    const char second = lower(i + 2);
    if ((first == 'r' || first == 'v') && second == 'e') return i + 3;
    if (first == 'l' && second == 'l') return i + 3;
    if (any_case && text_.substr(i + 1, 2) == "\u017F") return i + 3;
    return i;
  }

  // \s+(?!\S)|\s+ at i, a space: all of the run if the text ends there or it is one character, else
  // the run without its last.
  size_t SpacesEnd(size_t i) const {
    size_t last = i;
    size_t end = i;
    while (!AtEnd(end)) {
      const DecodedChar c = DecodeUtf8(text_, end);
      if (ClassOf(c.code) != CharClass::kSpace) break;
      last = end;
      end += c.bytes;
    }
    return AtEnd(end) || last == i ? end : last;
  }
  // \s*[\r\n]+ at i: the end of the run's last newline, or i.
  size_t NewlinesEnd(size_t i) const {
    size_t newline_end = i;
    for (size_t end = i; !AtEnd(end);) {
      const DecodedChar c = DecodeUtf8(text_, end);
      if (ClassOf(c.code) != CharClass::kSpace) break;
      end += c.bytes;
      if (c.code == '\r' || c.code == '\n') newline_end = end;
    }
    return newline_end;
  }

 private:
  std::string_view text_;
};

size_t Gpt2PieceEnd(const Scanner& scan, size_t i) {
  if (const size_t end = scan.ContractionEnd(i, false); end != i) return end;
  const size_t body = scan.ByteAt(i) == ' ' ? i + 1 : i;
  for (const CharClass wanted : {CharClass::kLetter, CharClass::kNumber, CharClass::kOther}) {
    if (scan.Is(body, wanted)) return scan.RunEnd(body, wanted);
  }
  return scan.SpacesEnd(i);
}

size_t Llama3PieceEnd(const Scanner& scan, size_t i, size_t digits_max) {
  if (const size_t end = scan.ContractionEnd(i, true); end != i) return end;
  if (scan.Is(i, CharClass::kLetter)) return scan.RunEnd(i, CharClass::kLetter);
  if (scan.Is(i, CharClass::kNumber)) return scan.RunEnd(i, CharClass::kNumber, digits_max);
  if (!IsNewline(scan.ByteAt(i))) {
    const size_t next = scan.After(i);
    if (scan.Is(next, CharClass::kLetter)) return scan.RunEnd(next, CharClass::kLetter);
  }
  const size_t body = scan.ByteAt(i) == ' ' ? i + 1 : i;
  if (scan.Is(body, CharClass::kOther)) {
    size_t end = scan.RunEnd(body, CharClass::kOther);
    while (IsNewline(scan.ByteAt(end))) ++end;
    return end;
  }
  if (const size_t end = scan.NewlinesEnd(i); end != i) return end;
  return scan.SpacesEnd(i);
}

class KnownSplit : public PreTokenizer {
 public:
  // digits_max 0 = GPT-2's pattern.
  explicit KnownSplit(size_t digits_max) : digits_max_(digits_max) {}

  Status Split(std::string_view piece, Pieces& out) const override {
    const Scanner scan(piece);
    for (size_t begin = 0; begin < piece.size();) {
      const size_t end =
          digits_max_ == 0 ? Gpt2PieceEnd(scan, begin) : Llama3PieceEnd(scan, begin, digits_max_);
      out.views.push_back(piece.substr(begin, end - begin));
      begin = end;
    }
    return OkStatus();
  }

 private:
  size_t digits_max_;
};

class DigitSplit : public PreTokenizer {
 public:
  explicit DigitSplit(bool individual) : individual_(individual) {}

  Status Split(std::string_view piece, Pieces& out) const override {
    size_t begin = 0;
    bool in_digits = false;
    for (size_t i = 0; i < piece.size();) {
      const DecodedChar c = DecodeUtf8(piece, i);
      const bool digit = ClassOf(c.code) == CharClass::kNumber;
      if (i != begin && (digit != in_digits || (digit && individual_))) {
        out.views.push_back(piece.substr(begin, i - begin));
        begin = i;
      }
      in_digits = digit;
      i += c.bytes;
    }
    out.views.push_back(piece.substr(begin));
    return OkStatus();
  }

 private:
  bool individual_;
};

class PrefixSpace : public PreTokenizer {
 public:
  Status Split(std::string_view piece, Pieces& out) const override {
    if (piece.front() == ' ') {
      out.views.push_back(piece);
    } else {
      out.views.push_back(out.owned.emplace_back(" " + std::string(piece)));
    }
    return OkStatus();
  }
};

}  // namespace

Result<std::unique_ptr<PreTokenizer>> MakeSplit(const SplitSpec& spec) {
  // These patterns match every character, so what is kept of matches is all that matters.
  const bool keeps_matches = spec.behavior == SplitBehavior::kIsolated ||
                             (spec.behavior == SplitBehavior::kRemoved && spec.invert);
  if (keeps_matches && !spec.is_literal) {
    if (spec.pattern == kGpt2Pattern) return {std::make_unique<KnownSplit>(0)};
    if (spec.pattern == kLlama3Pattern) return {std::make_unique<KnownSplit>(3)};
    if (spec.pattern == kQwen2Pattern) return {std::make_unique<KnownSplit>(1)};
  }
  return MakeRegexSplit(spec);
}

std::unique_ptr<PreTokenizer> MakeDigitSplit(bool individual) {
  return std::make_unique<DigitSplit>(individual);
}

std::unique_ptr<PreTokenizer> MakePrefixSpace() {
  return std::make_unique<PrefixSpace>();
}

}  // namespace muselet
