// Python's two ways of formatting: "%s" % values and "{}".format(values), as far as templates go.
#include <fmt/format.h>

#include <charconv>

#include "node/text/jinja/builtins.h"

namespace muselet::jinja {
namespace {

constexpr int kWidthMax = 4096;

struct Spec {
  bool left = false;
  bool zero = false;
  bool plus = false;
  int width = 0;
  int precision = -1;
};

// A number at text[i], 0 if there is none.
Result<int> ReadNumber(const std::string& text, size_t& i) {
  int number = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
    number = number * 10 + (text[i] - '0');
    if (number > kWidthMax) return InvalidArgument("width or precision is too large");
  }
  return number;
}

Text Padded(Text text, const Spec& spec, bool number) {
  const auto size = static_cast<int>(CharCount(text.bytes()));
  if (size >= spec.width) return text;
  const auto missing = static_cast<size_t>(spec.width - size);
  Text out;
  if (spec.left) {
    out.Append(text);
    out.Append(std::string(missing, ' '), false);
  } else if (spec.zero && number) {
    const bool sign = text.size() > 0 && (text.bytes()[0] == '-' || text.bytes()[0] == '+');
    out.Append(text.Slice(0, sign ? 1 : 0));
    out.Append(std::string(missing, '0'), false);
    out.Append(text.Slice(sign ? 1 : 0, text.size()));
  } else {
    out.Append(std::string(missing, ' '), false);
    out.Append(text);
  }
  return out;
}

Result<Text> FormatOne(const Value& value, char type, const Spec& spec) {
  if (type == 's' || type == 'r') {
    Text text;
    if (type == 's') {
      text = ToText(value);
    } else {
      AppendRepr(value, text);
    }
    if (spec.precision >= 0) {
      text = text.Slice(0, CharOffset(text.bytes(), static_cast<size_t>(spec.precision)));
    }
    return Padded(std::move(text), spec, false);
  }
  if (!value.is_number()) {
    return InvalidArgument(std::string("%") + type + " format: a number is required, not " +
                           TypeName(value));
  }
  std::string text;
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  const int64_t integer =
      value.is_float() ? static_cast<int64_t>(std::min(std::max(value.number(), -9e18), 9e18))
                       : value.integer();
  switch (type) {
    case 'd':
    case 'i':
    case 'u':
      text = fmt::format("{}", integer);
      break;
    case 'x':
      text = fmt::format("{:x}", integer);
      break;
    case 'X':
      text = fmt::format("{:X}", integer);
      break;
    case 'o':
      text = fmt::format("{:o}", integer);
      break;
    case 'f':
    case 'F':
      text = fmt::format("{:.{}f}", value.number(), precision);
      break;
    case 'e':
      text = fmt::format("{:.{}e}", value.number(), precision);
      break;
    case 'g':
      text = fmt::format("{:.{}g}", value.number(), precision);
      break;
    default:
      return InvalidArgument(std::string("unsupported format character '") + type + "'");
  }
  if (spec.plus && text[0] != '-') text.insert(0, "+");
  return Padded(Text(std::move(text)), spec, true);
}

}  // namespace

Result<Value> FormatPercent(Runtime& runtime, const Text& format, const Value& values) {
  std::vector<Value> items = {values};
  if (values.is_list() && values.list().is_tuple) items = values.list().items;
  RETURN_IF_ERROR(runtime.Charge(values.weight() + format.size() / 32));
  const std::string& text = format.bytes();
  Text out;
  size_t used = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t percent = std::min(text.find('%', i), text.size());
    out.Append(format.Slice(i, percent));
    if (percent == text.size()) break;
    i = percent + 1;
    if (i < text.size() && text[i] == '%') {
      out.Append("%", false);
      ++i;
      continue;
    }
    const Value* item = nullptr;
    if (i < text.size() && text[i] == '(') {
      const size_t close = text.find(')', i);
      if (close == std::string::npos) return InvalidArgument("incomplete format key");
      if (!values.is_dict()) return InvalidArgument("format requires a mapping");
      item = values.dict().Find(std::string_view(text).substr(i + 1, close - i - 1));
      if (item == nullptr) return InvalidArgument("format key is missing");
      i = close + 1;
    }
    Spec spec;
    for (; i < text.size() && std::string_view("-+0 #").find(text[i]) != std::string::npos; ++i) {
      spec.left = spec.left || text[i] == '-';
      spec.plus = spec.plus || text[i] == '+';
      spec.zero = spec.zero || text[i] == '0';
    }
    ASSIGN_OR_RETURN(spec.width, ReadNumber(text, i));
    if (i < text.size() && text[i] == '.') {
      ++i;
      ASSIGN_OR_RETURN(spec.precision, ReadNumber(text, i));
    }
    if (i >= text.size()) return InvalidArgument("incomplete format");
    if (item == nullptr) {
      if (used >= items.size()) return InvalidArgument("not enough arguments for format string");
      item = &items[used++];
    }
    ASSIGN_OR_RETURN(const Text formatted, FormatOne(*item, text[i], spec));
    RETURN_IF_ERROR(runtime.Charge(formatted.size() / 16));
    out.Append(formatted);
    ++i;
  }
  if (used < items.size() && !values.is_dict()) {
    return InvalidArgument("not all arguments converted during string formatting");
  }
  return runtime.Made(std::move(out));
}

Result<Value> FormatBraces(Runtime& runtime, const Text& format, const Arguments& arguments) {
  const std::string& text = format.bytes();
  Text out;
  size_t next = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t brace = std::min(text.find_first_of("{}", i), text.size());
    out.Append(format.Slice(i, brace));
    if (brace == text.size()) break;
    if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
      out.Append(format.Slice(brace, brace + 1));
      i = brace + 2;
      continue;
    }
    const size_t close = text[brace] == '{' ? text.find('}', brace) : std::string::npos;
    if (close == std::string::npos) return InvalidArgument("single brace in format string");
    const std::string field = text.substr(brace + 1, close - brace - 1);
    i = close + 1;
    const Value* item = nullptr;
    size_t index = 0;
    const auto number = std::from_chars(field.data(), field.data() + field.size(), index);
    if (field.empty()) {
      item = arguments.Get(next++, "");
    } else if (number.ec == std::errc() && number.ptr == field.data() + field.size()) {
      item = arguments.Get(index, "");
    } else {
      item = arguments.Get(Arguments::npos, field);
    }
    if (item == nullptr) {
      return InvalidArgument("format field {" + field.substr(0, 64) +
                             "} is missing or not of the supported kind");
    }
    RETURN_IF_ERROR(runtime.Charge(item->weight()));
    out.Append(ToText(*item));
  }
  return runtime.Made(std::move(out));
}

}  // namespace muselet::jinja
