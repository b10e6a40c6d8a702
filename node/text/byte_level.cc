#include "node/text/byte_level.h"

#include "node/text/utf8.h"

namespace muselet {
namespace {

constexpr bool SpellsItself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char32_t, 256> MakeAlphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) alphabet[byte] = SpellsItself(byte) ? byte : next++;
  return alphabet;
}
constexpr std::array<char32_t, 256> kAlphabet = MakeAlphabet();
constexpr char32_t kAlphabetEnd = 0x144;  // one past the largest character of the alphabet

constexpr std::array<int16_t, kAlphabetEnd> MakeInverse() {
  std::array<int16_t, kAlphabetEnd> inverse{};
  for (auto& value : inverse) value = -1;
  for (int byte = 0; byte < 256; ++byte) inverse[kAlphabet[static_cast<size_t>(byte)]] = byte;
  return inverse;
}
constexpr std::array<int16_t, kAlphabetEnd> kInverse = MakeInverse();

}  // namespace

std::array<char32_t, 256> ByteLevelAlphabet() {
  return kAlphabet;
}

bool AppendByteLevelDecoded(std::string_view spelled, std::string& out) {
  const size_t start = out.size();
  for (size_t i = 0; i < spelled.size();) {
    const DecodedChar c = DecodeUtf8(spelled, i);
    if (c.code >= kAlphabetEnd || kInverse[c.code] < 0) {
      out.resize(start);
      out += spelled;
      return false;
    }
    out.push_back(static_cast<char>(kInverse[c.code]));
    i += c.bytes;
  }
  return true;
}

}  // namespace muselet
