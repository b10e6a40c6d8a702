// What filters and methods of strings share.
#include <utf8proc.h>

#include "node/text/jinja/builtins.h"
#include "node/text/utf8.h"

namespace muselet::jinja {
namespace {

// str.strip() also takes the separators 0x1C to 0x1F, which Python counts as white space.
bool Strips(const std::string& bytes, size_t at, const std::string* chars) {
  const DecodedChar c = DecodeUtf8(bytes, at);
  if (chars != nullptr) {
    return chars->find(bytes.substr(at, c.bytes)) != std::string::npos;
  }
  return ClassOf(c.code) == CharClass::kSpace || (c.code >= 0x1C && c.code <= 0x1F);
}

}  // namespace

Text Strip(const Text& text, const std::string* chars, bool left, bool right) {
  const std::string& bytes = text.bytes();
  size_t begin = 0;
  size_t end = bytes.size();
  while (left && begin < end && Strips(bytes, begin, chars))
    begin += DecodeUtf8(bytes, begin).bytes;
  while (right && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(bytes[last]) & 0xC0) == 0x80) --last;
    if (!Strips(bytes, last, chars)) break;
    end = last;
  }
  return text.Slice(begin, end);
}

Result<Value> ReplaceText(Runtime& runtime, const Text& text, const Text& from, const Text& to,
                          int64_t count) {
  const std::string& bytes = text.bytes();
  Text out;
  size_t done = 0;
  const auto add = [&](size_t end, bool replacement) {
    out.Append(text.Slice(done, end));
    if (replacement) out.Append(to);
    done = end;
    const bool fits = out.size() <= runtime.limits().text_bytes_max;
    return fits ? runtime.Charge(1) : ResourceExhausted("the template makes too long a text");
  };
  for (size_t at = 0; count != 0 && at <= bytes.size(); --count) {
    if (from.size() == 0) {  // before each character and at the end
      RETURN_IF_ERROR(add(at, true));
      if (at == bytes.size()) break;
      at += DecodeUtf8(bytes, at).bytes;
      continue;
    }
    at = bytes.find(from.bytes(), at);
    if (at == std::string::npos) break;
    RETURN_IF_ERROR(add(at, true));
    at += from.size();
    done = at;
  }
  RETURN_IF_ERROR(add(bytes.size(), false));
  return runtime.Made(std::move(out));
}

Text MapCase(const Text& text, bool upper) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeUtf8(text.bytes(), i);
    i += c.bytes;
    const auto code = static_cast<utf8proc_int32_t>(c.code);
    if (upper && c.code == 0xDF) {  // the one common letter that grows
      out += "SS";
    } else {
      const auto mapped = upper ? utf8proc_toupper(code) : utf8proc_tolower(code);
      AppendUtf8(static_cast<char32_t>(mapped), out);
    }
  }
  return text.Derived(std::move(out));
}

Text Capitalize(const Text& text) {
  if (text.size() == 0) return text;
  const size_t first = DecodeUtf8(text.bytes(), 0).bytes;
  Text out = MapCase(text.Slice(0, first), true);
  out.Append(MapCase(text.Slice(first, text.size()), false));
  return out;
}

}  // namespace muselet::jinja
