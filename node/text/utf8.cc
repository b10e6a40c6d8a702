#include "node/text/utf8.h"

#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <cstring>

namespace muselet {
namespace {

constexpr std::array<CharClass, 128> AsciiClasses() {
  std::array<CharClass, 128> classes{};
  for (size_t c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool digit = c >= '0' && c <= '9';
    const bool space = c == ' ' || (c >= 9 && c <= 13);
    classes[c] = letter  ? CharClass::kLetter
                 : digit ? CharClass::kNumber
                 : space ? CharClass::kSpace
                         : CharClass::kOther;
  }
  return classes;
}
constexpr std::array<CharClass, 128> kAsciiClasses = AsciiClasses();

// The range of the second byte after `lead` (table 3-7); empty (low > high) for a bad lead.
struct SecondByte {
  unsigned char low, high;
  size_t length;  // of the whole character
};
SecondByte SecondByteOf(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {0x80, 0xBF, 2};
  if (lead == 0xE0) return {0xA0, 0xBF, 3};
  if (lead == 0xED) return {0x80, 0x9F, 3};
  if (lead >= 0xE1 && lead <= 0xEF) return {0x80, 0xBF, 3};
  if (lead == 0xF0) return {0x90, 0xBF, 4};
  if (lead >= 0xF1 && lead <= 0xF3) return {0x80, 0xBF, 4};
  if (lead == 0xF4) return {0x80, 0x8F, 4};
  return {1, 0, 1};
}

}  // namespace

Utf8Step NextUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return {Utf8Kind::kCharacter, 1};
  const SecondByte second = SecondByteOf(byte(0));
  if (second.low > second.high) return {Utf8Kind::kInvalid, 1};
  if (text.size() == 1) return {Utf8Kind::kIncomplete, 1};
  if (byte(1) < second.low || byte(1) > second.high) return {Utf8Kind::kInvalid, 1};
  for (size_t i = 2; i < second.length; ++i) {
    if (text.size() == i) return {Utf8Kind::kIncomplete, i};
    if ((byte(i) & 0xC0) != 0x80) return {Utf8Kind::kInvalid, i};
  }
  return {Utf8Kind::kCharacter, second.length};
}

bool IsValidUtf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    // Eight ASCII bytes at a time: most text is.
    while (i + 8 <= text.size()) {
      uint64_t word;
      std::memcpy(&word, text.data() + i, 8);
      if ((word & 0x8080808080808080ULL) != 0) break;
      i += 8;
    }
    if (i == text.size()) break;
    const Utf8Step step = NextUtf8(text.substr(i));
    if (step.kind != Utf8Kind::kCharacter) return false;
    i += step.bytes;
  }
  return true;
}

void AppendUtf8(char32_t code, std::string& out) {
  const auto put = [&](char32_t value) { out.push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

CharClass ClassOf(char32_t code) {
  if (code < 128) return kAsciiClasses[code];
  if (code == 0x85) return CharClass::kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    default:
      return CharClass::kOther;
  }
}

bool IsWordChar(char32_t code) {
  if (code == '_' || code == 0x200C || code == 0x200D) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return true;
    default:
      return ClassOf(code) == CharClass::kLetter;
  }
}

bool IsPrintable(char32_t code) {
  if (code == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

std::string OneLine(std::string_view text, size_t bytes_max) {
  std::string line;
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = NextUtf8(text.substr(i));
    const bool shown = step.kind == Utf8Kind::kCharacter && IsPrintable(DecodeUtf8(text, i).code);
    const std::string_view piece = shown ? text.substr(i, step.bytes) : "?";
    if (line.size() + piece.size() > bytes_max) return line + "...";
    line += piece;
    i += step.bytes;
  }
  return line;
}

std::string Quoted(std::string_view text) {
  return "\"" + OneLine(text, 64) + "\"";
}

std::string NormalizeNfc(std::string_view text) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped, options);
  if (size < 0 || mapped == nullptr) return std::string(text);
  std::string out(reinterpret_cast<const char*>(mapped), static_cast<size_t>(size));
  std::free(mapped);
  return out;
}

}  // namespace muselet
