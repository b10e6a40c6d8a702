// Filters over strings and numbers, and the look-up of all.
#include <array>
#include <charconv>
#include <cmath>

#include "node/text/jinja/builtins.h"
#include "node/text/jinja/filter_table.h"
#include "node/text/utf8.h"

namespace muselet::jinja {
namespace {

// The input as str(input): most filters of jinja2 take any value.
Result<Text> InputText(Runtime& runtime, const Value& input) {
  RETURN_IF_ERROR(runtime.Charge(input.weight()));
  return ToText(input);
}

Result<int64_t> IntegerArgument(const Arguments& arguments, size_t index, std::string_view name,
                                int64_t fallback) {
  const Value* given = arguments.Get(index, name);
  if (given == nullptr) return fallback;
  if (!given->is_integral()) {
    return InvalidArgument(std::string(name) + ": expected an int, not " + TypeName(*given));
  }
  return given->integer();
}

Result<Value> Upper(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  return Value(MapCase(text, true));
}

Result<Value> Lower(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  return Value(MapCase(text, false));
}

Result<Value> CapitalizeFilter(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  return Value(Capitalize(text));
}

// Words begin behind white space and - ( { [ <.
Result<Value> TitleFilter(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  Text out;
  bool at_start = true;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeUtf8(text.bytes(), i);
    out.Append(MapCase(text.Slice(i, i + c.bytes), at_start));
    at_start = ClassOf(c.code) == CharClass::kSpace ||
               (c.code < 0x80 &&
                std::string_view("-({[<").find(static_cast<char>(c.code)) != std::string::npos);
    i += c.bytes;
  }
  return Value(std::move(out));
}

Result<Value> Trim(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  const Value* chars = arguments.Get(0, "chars");
  const bool given = chars != nullptr && !chars->is_none();
  if (given && !chars->is_string()) return InvalidArgument("trim: chars: expected a str");
  return Value(Strip(text, given ? &chars->text().bytes() : nullptr, true, true));
}

Result<Value> Replace(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value* from = arguments.Get(0, "old");
  const Value* to = arguments.Get(1, "new");
  if (from == nullptr || to == nullptr) return InvalidArgument("replace needs two strings");
  const Value* count = arguments.Get(2, "count");
  const bool limited = count != nullptr && count->is_integral();
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  return ReplaceText(runtime, text, ToText(*from), ToText(*to), limited ? count->integer() : -1);
}

Result<Value> String(Runtime& runtime, const Value& input, const Arguments&) {
  if (input.is_string()) return input;
  ASSIGN_OR_RETURN(Text text, InputText(runtime, input));
  return runtime.Made(std::move(text));
}

Result<Value> Escape(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  Text out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text.bytes()[i];
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '"'  ? "&#34;"
                                    : c == '\'' ? "&#39;"
                                                : "";
    if (entity.empty()) {
      out.Append(text.Slice(i, i + 1));
    } else {
      out.Append(entity, text.any_tainted());
    }
  }
  return runtime.Made(std::move(out));
}

Result<Value> Indent(Runtime& runtime, const Value& input, const Arguments& arguments) {
  constexpr int64_t kWidthMax = 1000;
  Text unit("    ");
  const Value* width = arguments.Get(0, "width");
  if (width != nullptr && width->is_string()) {
    unit = width->text();
  } else {
    ASSIGN_OR_RETURN(const int64_t columns, IntegerArgument(arguments, 0, "width", 4));
    if (columns > kWidthMax) return InvalidArgument("indent: width is too large");
    unit = Text(std::string(static_cast<size_t>(std::max<int64_t>(columns, 0)), ' '));
  }
  const Value* first = arguments.Get(1, "first");
  const Value* blank = arguments.Get(2, "blank");
  const bool indents_first = first != nullptr && first->Truth();
  const bool indents_blank = blank != nullptr && blank->Truth();
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  Text out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.bytes().find('\n', begin), text.size());
    if (begin == 0 ? indents_first : (indents_blank || end > begin)) out.Append(unit);
    out.Append(text.Slice(begin, std::min(end + 1, text.size())));
    if (out.size() > runtime.limits().text_bytes_max) break;
    begin = end + 1;
  }
  return runtime.Made(std::move(out));
}

Result<Value> Truncate(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const int64_t length, IntegerArgument(arguments, 0, "length", 255));
  const Value* kill = arguments.Get(1, "killwords");
  const Value* end_given = arguments.Get(2, "end");
  ASSIGN_OR_RETURN(const int64_t leeway, IntegerArgument(arguments, 3, "leeway", 5));
  const Text ending = end_given == nullptr ? Text("...") : ToText(*end_given);
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  const auto size = static_cast<int64_t>(CharCount(text.bytes()));
  const auto ending_size = static_cast<int64_t>(CharCount(ending.bytes()));
  if (length < ending_size || leeway < 0) return InvalidArgument("truncate: length is too small");
  if (size <= length + leeway) return Value(text);
  size_t cut = CharOffset(text.bytes(), static_cast<size_t>(length - ending_size));
  if (kill == nullptr || !kill->Truth()) {
    const size_t space = text.bytes().substr(0, cut).rfind(' ');
    if (space != std::string::npos) cut = space;
  }
  Text out = text.Slice(0, cut);
  out.Append(ending);
  return runtime.Made(std::move(out));
}

Result<Value> WordCount(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  int64_t count = 0;
  bool in_word = false;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeUtf8(text.bytes(), i);
    const bool word = IsWordChar(c.code);
    count += word && !in_word ? 1 : 0;
    in_word = word;
    i += c.bytes;
  }
  return Value(count);
}

Result<Value> UrlEncode(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const Text text, InputText(runtime, input));
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text.bytes()) {
    const auto byte = static_cast<unsigned char>(c);
    const CharClass kind = byte < 0x80 ? ClassOf(byte) : CharClass::kOther;
    if (kind == CharClass::kLetter || kind == CharClass::kNumber ||
        std::string_view("_.-~/").find(c) != std::string::npos) {
      out += c;
    } else {
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return runtime.Made(text.Derived(std::move(out)));
}

Result<Value> Int(Runtime&, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const int64_t fallback, IntegerArgument(arguments, 0, "default", 0));
  ASSIGN_OR_RETURN(const int64_t base, IntegerArgument(arguments, 1, "base", 10));
  if (input.is_integral()) return Value(input.integer());
  if (input.is_float()) {
    const double number = std::trunc(input.number());
    return Value(std::fabs(number) < 9e18 ? static_cast<int64_t>(number) : fallback);
  }
  if (!input.is_string()) return Value(fallback);
  const std::string text = Strip(input.text(), nullptr, true, true).bytes();
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  const auto read =
      std::from_chars(begin, end, integer, static_cast<int>(std::clamp<int64_t>(base, 2, 36)));
  if (read.ec == std::errc() && read.ptr == end) return Value(integer);
  double number = 0;
  const auto read_float = std::from_chars(begin, end, number);
  const bool is_float = read_float.ec == std::errc() && read_float.ptr == end;
  if (is_float && std::fabs(number) < 9e18) return Value(static_cast<int64_t>(number));
  return Value(fallback);
}

Result<Value> Float(Runtime&, const Value& input, const Arguments& arguments) {
  const Value* fallback = arguments.Get(0, "default");
  const Value otherwise = fallback == nullptr ? Value(0.0) : *fallback;
  if (input.is_number()) return Value(input.number());
  if (!input.is_string()) return otherwise;
  const std::string text = Strip(input.text(), nullptr, true, true).bytes();
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  double number = 0;
  const auto read = std::from_chars(begin, text.data() + text.size(), number);
  const bool whole = read.ec == std::errc() && read.ptr == text.data() + text.size();
  return whole ? Value(number) : otherwise;
}

Result<Value> Abs(Runtime&, const Value& input, const Arguments&) {
  if (input.is_float()) return Value(std::fabs(input.number()));
  if (!input.is_integral() || input.integer() == INT64_MIN) {
    return InvalidArgument("abs: expected a number, not " + TypeName(input));
  }
  return Value(std::abs(input.integer()));
}

Result<Value> Round(Runtime&, const Value& input, const Arguments& arguments) {
  if (!input.is_number()) return InvalidArgument("round: expected a number");
  ASSIGN_OR_RETURN(const int64_t precision, IntegerArgument(arguments, 0, "precision", 0));
  if (precision < -300 || precision > 300) return InvalidArgument("round: precision out of range");
  const Value* method = arguments.Get(1, "method");
  const std::string how = method == nullptr ? "common" : ToText(*method).bytes();
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.number() * scale;
  if (how == "ceil") return Value(std::ceil(scaled) / scale);
  if (how == "floor") return Value(std::floor(scaled) / scale);
  if (how != "common") return InvalidArgument("round: method must be common, ceil or floor");
  return Value(std::nearbyint(scaled) / scale);  // ties to even, as Python's round
}

Result<Value> Default(Runtime&, const Value& input, const Arguments& arguments) {
  const Value* fallback = arguments.Get(0, "default_value");
  const Value* boolean = arguments.Get(1, "boolean");
  const bool empty_counts = boolean != nullptr && boolean->Truth();
  if (!input.is_undefined() && (!empty_counts || input.Truth())) return input;
  return fallback == nullptr ? Value::String("") : *fallback;
}

Result<Value> Format(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text format, InputText(runtime, input));
  if (arguments.keywords.empty()) {
    return FormatPercent(runtime, format, MakeList(arguments.positional, true));
  }
  std::vector<std::pair<Value, Value>> named;
  for (const auto& [name, value] : arguments.keywords)
    named.emplace_back(Value::String(name), value);
  return FormatPercent(runtime, format, MakeDict(std::move(named)));
}

Result<Value> Center(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(arguments, 0, "width", 80));
  ASSIGN_OR_RETURN(Text text, InputText(runtime, input));
  return CallMethod(runtime, Value(std::move(text)), "center", {{Value(width)}, {}});
}

constexpr std::array<FilterEntry, 24> kTextFilters = {{
    {"upper", Upper},
    {"lower", Lower},
    {"capitalize", CapitalizeFilter},
    {"title", TitleFilter},
    {"trim", Trim},
    {"replace", Replace},
    {"string", String},
    {"safe", String},
    {"escape", Escape},
    {"e", Escape},
    {"forceescape", Escape},
    {"indent", Indent},
    {"truncate", Truncate},
    {"wordcount", WordCount},
    {"urlencode", UrlEncode},
    {"int", Int},
    {"float", Float},
    {"abs", Abs},
    {"round", Round},
    {"default", Default},
    {"d", Default},
    {"format", Format},
    {"center", Center},
    {"tojson", [](Runtime& runtime, const Value& input,
                  const Arguments& arguments) { return ToJson(runtime, input, arguments); }},
}};

FilterFunction FindFilter(std::string_view name) {
  for (const auto& table : {TextFilters(), SequenceFilters()}) {
    for (const FilterEntry& entry : table) {
      if (entry.name == name) return entry.function;
    }
  }
  return nullptr;
}

}  // namespace

std::span<const FilterEntry> TextFilters() {
  return kTextFilters;
}

bool IsKnownFilter(std::string_view name) {
  return FindFilter(name) != nullptr;
}

Result<Value> ApplyFilter(Runtime& runtime, std::string_view name, const Value& input,
                          const Arguments& arguments) {
  return FindFilter(name)(runtime, input, arguments);
}

}  // namespace muselet::jinja
