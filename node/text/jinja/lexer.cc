#include "node/text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "node/text/utf8.h"

namespace muselet::jinja {
namespace {

constexpr size_t npos = std::string_view::npos;

bool IsSpaceAt(std::string_view text, size_t i) {
  return ClassOf(DecodeUtf8(text, i).code) == CharClass::kSpace;
}

std::string_view RightStripped(std::string_view text) {
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!IsSpaceAt(text, begin)) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

// "\r\n" and "\r" become "\n"; one newline at the very end goes.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<Token>> Run() {
    while (at_ < source_.size()) RETURN_IF_ERROR(Outside());
    Emit(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  Status Fault(const std::string& problem) const {
    return InvalidArgument("line " + std::to_string(line_) + ": " + problem);
  }
  void Emit(TokenKind kind, std::string text) {
    Token token;
    token.kind = kind;
    token.text = std::move(text);
    token.line = line_;
    tokens_.push_back(std::move(token));
  }
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  void Advance(size_t count) {
    const std::string_view passed = source_.substr(at_, count);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    at_ += count;
    line_starting_ = !passed.empty() && passed.back() == '\n';
  }
  void SkipSpaces() {
    size_t end = at_;
    while (end < source_.size() && IsSpaceAt(source_, end)) end += DecodeUtf8(source_, end).bytes;
    if (end > at_) Advance(end - at_);
  }

  Status Outside();
  Status Comment();
  Status Raw(size_t tag_end);
  Status Inside(bool block);
  Status Operator();
  Status Number();
  Status QuotedString();
  Status Escape(std::string_view body, size_t& i, std::string& out) const;
  void Name();
  // Length of the end of a tag at at_ ("%}", "-%}", "+%}"), 0 if there is none.
  size_t EndLength(std::string_view end) const;
  void CloseTag(size_t length, bool trims_newline);
  size_t RawTagEnd(std::string_view word) const;

  std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

// Data up to the next tag, and then the tag.
Status Lexer::Outside() {
  size_t begin = at_;
  while (begin < source_.size()) {
    begin = source_.find('{', begin);
    if (begin == npos || begin + 1 >= source_.size()) begin = source_.size();
    if (begin >= source_.size()) break;
    const char next = source_[begin + 1];
    if (next == '{' || next == '%' || next == '#') break;
    ++begin;
  }
  begin = std::min(begin, source_.size());
  std::string_view data = source_.substr(at_, begin - at_);
  const bool at_end = begin >= source_.size();
  const char kind = at_end ? '\0' : source_[begin + 1];
  const char sign = at_end || begin + 2 >= source_.size() ? '\0' : source_[begin + 2];
  if (sign == '-') {
    data = RightStripped(data);
  } else if (!at_end && sign != '+' && kind != '{') {
    const size_t line_begin = data.rfind('\n') == npos ? 0 : data.rfind('\n') + 1;
    const bool own_line = line_begin > 0 || line_starting_;
    if (own_line && RightStripped(data.substr(line_begin)).empty()) {
      data = data.substr(0, line_begin);
    }
  }
  if (!data.empty()) Emit(TokenKind::kData, std::string(data));
  Advance(begin - at_);
  if (at_end) return OkStatus();
  if (kind == '#') return Comment();
  if (const size_t raw_end = RawTagEnd("raw"); kind == '%' && raw_end != 0) return Raw(raw_end);
  Advance(sign == '-' || sign == '+' ? 3 : 2);
  Emit(kind == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, "");
  return Inside(kind == '%');
}

Status Lexer::Comment() {
  const size_t end = source_.find("#}", at_ + 2);
  if (end == npos) return Fault("comment is not closed");
  const bool strips = source_[end - 1] == '-' && end > at_ + 2;
  const bool keeps = source_[end - 1] == '+' && end > at_ + 2;
  Advance(end + 2 - at_);
  if (strips) SkipSpaces();
  if (!strips && !keeps && Peek() == '\n') Advance(1);
  return OkStatus();
}

// The length of "{% word %}" with its signs at at_, 0 if it is something else.
size_t Lexer::RawTagEnd(std::string_view word) const {
  size_t i = at_;
  if (source_.substr(i, 2) != "{%") return 0;
  i += 2;
  if (i < source_.size() && (source_[i] == '-' || source_[i] == '+')) ++i;
  while (i < source_.size() && IsSpaceAt(source_, i)) i += DecodeUtf8(source_, i).bytes;
  if (source_.substr(i, word.size()) != word) return 0;
  i += word.size();
  while (i < source_.size() && IsSpaceAt(source_, i)) i += DecodeUtf8(source_, i).bytes;
  if (i < source_.size() && (source_[i] == '-' || source_[i] == '+')) ++i;
  return source_.substr(i, 2) == "%}" ? i + 2 - at_ : 0;
}

Status Lexer::Raw(size_t tag_end) {
  const bool strips_begin = source_[at_ + tag_end - 3] == '-';
  Advance(tag_end);
  if (strips_begin) SkipSpaces();
  if (!strips_begin && Peek() == '\n') Advance(1);
  const size_t data_begin = at_;
  const bool starts_line = line_starting_;
  for (size_t begin = source_.find("{%", at_); begin != npos;
       begin = source_.find("{%", begin + 1)) {
    const size_t before = at_;
    at_ = begin;
    const size_t length = RawTagEnd("endraw");
    at_ = before;
    if (length == 0) continue;
    std::string_view data = source_.substr(data_begin, begin - data_begin);
    const size_t line_begin = data.rfind('\n') == npos ? 0 : data.rfind('\n') + 1;
    if (source_[begin + 2] == '-') {
      data = RightStripped(data);
    } else if (source_[begin + 2] != '+' && (line_begin > 0 || starts_line) &&
               RightStripped(data.substr(line_begin)).empty()) {
      data = data.substr(0, line_begin);
    }
    if (!data.empty()) Emit(TokenKind::kData, std::string(data));
    const bool strips = source_[begin + length - 3] == '-';
    const bool keeps = source_[begin + length - 3] == '+';
    Advance(begin + length - at_);
    if (strips) SkipSpaces();
    if (!strips && !keeps && Peek() == '\n') Advance(1);
    return OkStatus();
  }
  return Fault("raw block is not closed");
}

size_t Lexer::EndLength(std::string_view end) const {
  if (source_.substr(at_, 2) == end) return 2;
  const bool plus = end == "%}" && Peek() == '+';
  return (Peek() == '-' || plus) && source_.substr(at_ + 1, 2) == end ? 3 : 0;
}

void Lexer::CloseTag(size_t length, bool trims_newline) {
  const char sign = length == 3 ? Peek() : '\0';
  Advance(length);
  if (sign == '-') SkipSpaces();
  if (sign == '\0' && trims_newline && Peek() == '\n') Advance(1);
}

Status Lexer::Inside(bool block) {
  std::string open;  // brackets to be closed before the tag can end
  while (at_ < source_.size()) {
    if (IsSpaceAt(source_, at_)) {
      SkipSpaces();
      continue;
    }
    const size_t end = open.empty() ? EndLength(block ? "%}" : "}}") : 0;
    if (end != 0) {
      Emit(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
      CloseTag(end, block);
      return OkStatus();
    }
    const char c = Peek();
    if (IsDigit(c)) {
      RETURN_IF_ERROR(Number());
    } else if (c == '"' || c == '\'') {
      RETURN_IF_ERROR(QuotedString());
    } else if (c == '_' || IsWordChar(DecodeUtf8(source_, at_).code)) {
      Name();
    } else {
      RETURN_IF_ERROR(Operator());
      const std::string& text = tokens_.back().text;
      if (text == "(" || text == "[" || text == "{") open += text;
      if (text == ")" || text == "]" || text == "}") {
        const char wanted = text == ")" ? '(' : text == "]" ? '[' : '{';
        if (open.empty() || open.back() != wanted) return Fault("unexpected \"" + text + "\"");
        open.pop_back();
      }
    }
  }
  return Fault(block ? "{% is not closed" : "{{ is not closed");
}

Status Lexer::Operator() {
  constexpr std::array<std::string_view, 27> kOperators = {
      "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
      "(",  ")",  "{",  "}",  ">",  "<",  "=", ".", ":", "|", ",", ";", ""};
  for (const std::string_view op : kOperators) {
    if (op.empty() || source_.substr(at_, op.size()) != op) continue;
    Emit(TokenKind::kOperator, std::string(op));
    Advance(op.size());
    return OkStatus();
  }
  const DecodedChar c = DecodeUtf8(source_, at_);
  return Fault("unexpected character '" + std::string(source_.substr(at_, c.bytes)) + "'");
}

void Lexer::Name() {
  size_t end = at_;
  while (end < source_.size()) {
    const DecodedChar c = DecodeUtf8(source_, end);
    if (!IsWordChar(c.code)) break;
    end += c.bytes;
  }
  Emit(TokenKind::kName, std::string(source_.substr(at_, end - at_)));
  Advance(end - at_);
}

Status Lexer::Number() {
  std::string digits;
  size_t end = at_;
  bool is_float = false;
  const auto run = [&] {
    while (end < source_.size() && (IsDigit(source_[end]) || source_[end] == '_')) {
      if (source_[end] != '_') digits += source_[end];
      ++end;
    }
  };
  const auto digit_at = [&](size_t i) { return i < source_.size() && IsDigit(source_[i]); };
  run();
  if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
    is_float = true;
    digits += '.';
    ++end;
    run();
  }
  if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
    const bool sign =
        end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
    if (digit_at(end + (sign ? 2 : 1))) {
      is_float = true;
      digits += 'e';
      if (sign && source_[end + 1] == '-') digits += '-';
      end += sign ? 2 : 1;
      run();
    }
  }
  Emit(is_float ? TokenKind::kFloat : TokenKind::kInteger, digits);
  Token& token = tokens_.back();
  const char* last = digits.data() + digits.size();
  const auto result = is_float ? std::from_chars(digits.data(), last, token.number)
                               : std::from_chars(digits.data(), last, token.integer);
  if (result.ec != std::errc() || result.ptr != last)
    return Fault("number out of range: " + digits);
  Advance(end - at_);
  return OkStatus();
}

Status Lexer::QuotedString() {
  const char quote = Peek();
  size_t end = at_ + 1;
  while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
  if (end >= source_.size()) return Fault("string is not closed");
  const std::string_view body = source_.substr(at_ + 1, end - at_ - 1);
  std::string text;
  for (size_t i = 0; i < body.size();) {
    if (body[i] == '\\') {
      RETURN_IF_ERROR(Escape(body, i, text));
    } else {
      text += body[i++];
    }
  }
  Emit(TokenKind::kString, std::move(text));
  Advance(end + 1 - at_);
  return OkStatus();
}

// A backslash at body[i], as in Python's string literals; i goes behind it.
Status Lexer::Escape(std::string_view body, size_t& i, std::string& out) const {
  const char c = body[i + 1];  // a lone backslash at the end would have hidden the quote
  constexpr std::string_view kFrom = "\\'\"abfnrtv";
  constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
  if (const size_t simple = kFrom.find(c); simple != npos) {
    out += kTo[simple];
    i += 2;
    return OkStatus();
  }
  if (c == '\n') {
    i += 2;
    return OkStatus();
  }
  const size_t hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  uint32_t code = 0;
  if (hex > 0) {
    const std::string_view digits = body.substr(std::min(i + 2, body.size()), hex);
    const auto end = digits.data() + digits.size();
    const auto result = std::from_chars(digits.data(), end, code, 16);
    const bool character = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    if (digits.size() != hex || result.ptr != end || result.ec != std::errc() || !character) {
      return Fault("bad escape in a string");
    }
    AppendUtf8(code, out);
    i += 2 + hex;
    return OkStatus();
  }
  if (c >= '0' && c <= '7') {
    size_t end = i + 1;
    while (end < body.size() && end < i + 4 && body[end] >= '0' && body[end] <= '7') {
      code = code * 8 + static_cast<uint32_t>(body[end++] - '0');
    }
    AppendUtf8(code, out);
    i = end;
    return OkStatus();
  }
  out += '\\';
  ++i;
  return OkStatus();
}

}  // namespace

Result<std::vector<Token>> Tokenize(std::string_view source) {
  const std::string normalized = NormalizeNewlines(source);
  return Lexer(normalized).Run();
}

}  // namespace muselet::jinja
