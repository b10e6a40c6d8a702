// UTF-8 and the few Unicode properties that tokenizers need. Characters come from utf8proc's
// tables.
//
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace muselet {

// Whether `text` is well-formed UTF-8 (Unicode 15, table 3-7: no surrogates, no overlong forms).
bool IsValidUtf8(std::string_view text);

// A prefix of bytes read as UTF-8 in the way of Unicode's "maximal subpart" rule, which Rust's
// from_utf8_lossy and therefore Hugging Face's decoders follow.
enum class Utf8Kind : uint8_t { kCharacter, kInvalid, kIncomplete };
struct Utf8Step {
  Utf8Kind kind = Utf8Kind::kCharacter;
  size_t bytes = 0;  // of the character, of what one U+FFFD stands for, or of the open beginning
};
// REQUIRES: text is not empty.
Utf8Step NextUtf8(std::string_view text);

struct DecodedChar {
  char32_t code = 0;
  uint32_t bytes = 0;
};
// The character at `offset`. REQUIRES: valid UTF-8, offset at a character border before the end.
inline DecodedChar DecodeUtf8(std::string_view text, size_t offset) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[offset + i]); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3FU), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3FU) << 6 | (byte(2) & 0x3FU), 3};
  return {
      (lead & 0x07) << 18 | (byte(1) & 0x3FU) << 12 | (byte(2) & 0x3FU) << 6 | (byte(3) & 0x3FU),
      4};
}
void AppendUtf8(char32_t code, std::string& out);

// What regular expressions of tokenizers tell apart: \p{L}, \p{N}, \s (White_Space), the rest.
enum class CharClass : uint8_t { kLetter, kNumber, kSpace, kOther };
CharClass ClassOf(char32_t code);
// \w: letters, marks, numbers, connector punctuation.
bool IsWordChar(char32_t code);

// Python's str.isprintable: not a control, format, surrogate, private, unassigned or separator
// character other than the space.
bool IsPrintable(char32_t code);

// Text that came from a file or a client, for a message of one line: at most `bytes_max` bytes of
// whole characters, what is not printable or not UTF-8 as '?'.
std::string OneLine(std::string_view text, size_t bytes_max = 300);
// The same in quotes, at most 64 bytes.
std::string Quoted(std::string_view text);

// Unicode normalization form C of valid UTF-8.
std::string NormalizeNfc(std::string_view text);

}  // namespace muselet
