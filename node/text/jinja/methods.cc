// Python's methods of str, dict, list and tuple that do not change their object.
#include <algorithm>
#include <array>

#include "node/text/jinja/builtins.h"
#include "node/text/utf8.h"

namespace muselet::jinja {
namespace {

using MethodFunction = Result<Value> (*)(Runtime& runtime, const Value& self,
                                         const Arguments& arguments);
struct MethodEntry {
  std::string_view name;
  MethodFunction function;
};

// The string argument at `index`, null if it is missing or none.
Result<const Text*> OptionalText(const Arguments& arguments, size_t index, std::string_view name) {
  const Value* given = arguments.Get(index, name);
  if (given == nullptr || given->is_none()) return static_cast<const Text*>(nullptr);
  if (!given->is_string()) {
    return InvalidArgument("expected a str, not " + TypeName(*given));
  }
  return &given->text();
}

Result<const Text*> NeedText(const Arguments& arguments, size_t index, std::string_view name) {
  ASSIGN_OR_RETURN(const Text* text, OptionalText(arguments, index, name));
  if (text == nullptr) return InvalidArgument("missing argument '" + std::string(name) + "'");
  return text;
}

Result<int64_t> OptionalInteger(const Arguments& arguments, size_t index, std::string_view name,
                                int64_t fallback) {
  const Value* given = arguments.Get(index, name);
  if (given == nullptr) return fallback;
  if (!given->is_integral()) return InvalidArgument("expected an int, not " + TypeName(*given));
  return given->integer();
}

template <bool left, bool right>
Result<Value> StripMethod(Runtime&, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text* chars, OptionalText(arguments, 0, "chars"));
  return Value(Strip(self.text(), chars == nullptr ? nullptr : &chars->bytes(), left, right));
}

// startswith and endswith: a string or a tuple of them.
template <bool at_start>
Result<Value> HasAffix(Runtime&, const Value& self, const Arguments& arguments) {
  const Value* given = arguments.Get(0, "prefix");
  if (given == nullptr) return InvalidArgument("missing argument");
  std::vector<Value> affixes = {*given};
  if (given->is_list() && given->list().is_tuple) affixes = given->list().items;
  for (const Value& affix : affixes) {
    if (!affix.is_string()) return InvalidArgument("expected a str, not " + TypeName(affix));
    const std::string_view text = self.text().bytes();
    const std::string& wanted = affix.text().bytes();
    if (at_start ? text.starts_with(wanted) : text.ends_with(wanted)) return Value(true);
  }
  return Value(false);
}

// Pieces of a text between white space; with a limit, the rest stays whole at the other end.
std::vector<Value> SplitSpaces(const Text& text, int64_t count_max, bool from_right) {
  const std::string& bytes = text.bytes();
  std::vector<TextRange> words;
  bool in_word = false;
  for (size_t i = 0; i < bytes.size();) {
    const DecodedChar c = DecodeUtf8(bytes, i);
    const bool space = ClassOf(c.code) == CharClass::kSpace;
    if (!space && !in_word) words.push_back({i, i});
    i += c.bytes;
    if (!space) words.back().end = i;
    in_word = !space;
  }
  if (count_max >= 0 && words.size() > static_cast<size_t>(count_max)) {
    const auto split = static_cast<std::ptrdiff_t>(count_max);
    if (from_right) {
      const TextRange rest{0, (words.end() - split - 1)->end};
      words.erase(words.begin(), words.end() - split);
      words.insert(words.begin(), rest);
    } else {
      const TextRange rest{words[static_cast<size_t>(split)].begin, bytes.size()};
      words.resize(static_cast<size_t>(split));
      words.push_back(rest);
    }
  }
  std::vector<Value> parts;
  for (const TextRange& word : words) parts.emplace_back(text.Slice(word.begin, word.end));
  return parts;
}

template <bool from_right>
Result<Value> SplitMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text* separator, OptionalText(arguments, 0, "sep"));
  ASSIGN_OR_RETURN(int64_t count_max, OptionalInteger(arguments, 1, "maxsplit", -1));
  const Text& text = self.text();
  if (separator == nullptr) {
    RETURN_IF_ERROR(runtime.Charge(text.size()));
    return runtime.Made(SplitSpaces(text, count_max, from_right));
  }
  if (separator->size() == 0) return InvalidArgument("empty separator");
  const std::string& bytes = text.bytes();
  const std::string& cut = separator->bytes();
  std::vector<size_t> cuts;
  if (from_right) {
    size_t end = bytes.size();
    while (count_max-- != 0 && end >= cut.size()) {
      const size_t at = bytes.rfind(cut, end - cut.size());
      if (at == std::string::npos) break;
      cuts.insert(cuts.begin(), at);
      end = at;
    }
  } else {
    for (size_t at = bytes.find(cut); at != std::string::npos && count_max-- != 0;
         at = bytes.find(cut, at + cut.size())) {
      cuts.push_back(at);
    }
  }
  std::vector<Value> parts;
  size_t begin = 0;
  for (const size_t at : cuts) {
    parts.emplace_back(text.Slice(begin, at));
    begin = at + cut.size();
  }
  parts.emplace_back(text.Slice(begin, bytes.size()));
  RETURN_IF_ERROR(runtime.Charge(bytes.size() / 32));
  return runtime.Made(std::move(parts));
}

Result<Value> SplitLines(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value* keep = arguments.Get(0, "keepends");
  const bool keep_ends = keep != nullptr && keep->Truth();
  const Text& text = self.text();
  const std::string& bytes = text.bytes();
  std::vector<Value> lines;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = std::min(bytes.find_first_of("\n\r\v\f", begin), bytes.size());
    size_t next = std::min(end + 1, bytes.size());
    if (end + 1 < bytes.size() && bytes[end] == '\r' && bytes[end + 1] == '\n') ++next;
    lines.emplace_back(text.Slice(begin, keep_ends ? next : end));
    begin = next;
  }
  RETURN_IF_ERROR(runtime.Charge(bytes.size() / 32));
  return runtime.Made(std::move(lines));
}

Result<Value> ReplaceMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text* from, NeedText(arguments, 0, "old"));
  ASSIGN_OR_RETURN(const Text* to, NeedText(arguments, 1, "new"));
  ASSIGN_OR_RETURN(const int64_t count, OptionalInteger(arguments, 2, "count", -1));
  return ReplaceText(runtime, self.text(), *from, *to, count);
}

Result<Value> JoinMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Value* given = arguments.Get(0, "iterable");
  if (given == nullptr) return InvalidArgument("join() needs a list");
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, *given));
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) {
      return InvalidArgument("sequence item " + std::to_string(i) + ": expected str instance, " +
                             TypeName(items[i]) + " found");
    }
    if (i > 0) out.Append(self.text());
    out.Append(items[i].text());
    if (out.size() > runtime.limits().text_bytes_max) break;
  }
  return runtime.Made(std::move(out));
}

// The place of a substring in characters, -1 if there is none.
template <bool last, bool must>
Result<Value> FindMethod(Runtime&, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text* wanted, NeedText(arguments, 0, "sub"));
  const std::string& bytes = self.text().bytes();
  const size_t at = last ? bytes.rfind(wanted->bytes()) : bytes.find(wanted->bytes());
  if (at == std::string::npos) {
    if (must) return InvalidArgument("substring not found");
    return Value(int64_t{-1});
  }
  return Value(static_cast<int64_t>(CharCount(std::string_view(bytes).substr(0, at))));
}

Result<Value> CountMethod(Runtime&, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text* wanted, NeedText(arguments, 0, "sub"));
  const std::string& bytes = self.text().bytes();
  if (wanted->size() == 0) return Value(static_cast<int64_t>(CharCount(bytes)) + 1);
  int64_t count = 0;
  for (size_t at = bytes.find(wanted->bytes()); at != std::string::npos;
       at = bytes.find(wanted->bytes(), at + wanted->size())) {
    ++count;
  }
  return Value(count);
}

template <bool prefix>
Result<Value> RemoveAffix(Runtime&, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text* affix, NeedText(arguments, 0, "prefix"));
  const Text& text = self.text();
  const std::string_view bytes = text.bytes();
  const bool has = prefix ? bytes.starts_with(affix->bytes()) : bytes.ends_with(affix->bytes());
  if (!has) return self;
  return Value(prefix ? text.Slice(affix->size(), text.size())
                      : text.Slice(0, text.size() - affix->size()));
}

template <bool last>
Result<Value> Partition(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Text* separator, NeedText(arguments, 0, "sep"));
  if (separator->size() == 0) return InvalidArgument("empty separator");
  const Text& text = self.text();
  const size_t at =
      last ? text.bytes().rfind(separator->bytes()) : text.bytes().find(separator->bytes());
  const Value empty = Value::String("");
  if (at == std::string::npos) {
    return runtime.Made(
        last ? std::vector<Value>{empty, empty, self} : std::vector<Value>{self, empty, empty},
        true);
  }
  const size_t behind = at + separator->size();
  return runtime.Made(std::vector<Value>{Value(text.Slice(0, at)), Value(text.Slice(at, behind)),
                                         Value(text.Slice(behind, text.size()))},
                      true);
}

// ljust (-1), center (0), rjust (1).
template <int side>
Result<Value> Pad(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const int64_t width, OptionalInteger(arguments, 0, "width", 0));
  ASSIGN_OR_RETURN(const Text* given, OptionalText(arguments, 1, "fillchar"));
  const Text fill = given == nullptr ? Text(" ") : *given;
  if (CharCount(fill.bytes()) != 1) return InvalidArgument("the fill must be one character");
  const Text& text = self.text();
  const int64_t missing = width - static_cast<int64_t>(CharCount(text.bytes()));
  if (missing <= 0) return self;
  if (missing > static_cast<int64_t>(runtime.limits().text_bytes_max / 4)) {
    return ResourceExhausted("the template makes too long a text");
  }
  const int64_t left = side < 0 ? 0 : side > 0 ? missing : missing / 2 + (missing & width & 1);
  Text out;
  for (int64_t i = 0; i < left; ++i) out.Append(fill);
  out.Append(text);
  for (int64_t i = left; i < missing; ++i) out.Append(fill);
  return runtime.Made(std::move(out));
}

Result<Value> ZeroFill(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const int64_t width, OptionalInteger(arguments, 0, "width", 0));
  const Text& text = self.text();
  const int64_t missing = width - static_cast<int64_t>(CharCount(text.bytes()));
  if (missing <= 0) return self;
  if (missing > static_cast<int64_t>(runtime.limits().text_bytes_max)) {
    return ResourceExhausted("the template makes too long a text");
  }
  const bool sign = text.size() > 0 && (text.bytes()[0] == '-' || text.bytes()[0] == '+');
  Text out = text.Slice(0, sign ? 1 : 0);
  out.Append(std::string(static_cast<size_t>(missing), '0'), false);
  out.Append(text.Slice(sign ? 1 : 0, text.size()));
  return runtime.Made(std::move(out));
}

Result<Value> Title(Runtime&, const Value& self, const Arguments&) {
  const Text& text = self.text();
  Text out;
  bool after_letter = false;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeUtf8(text.bytes(), i);
    out.Append(MapCase(text.Slice(i, i + c.bytes), !after_letter));
    after_letter = ClassOf(c.code) == CharClass::kLetter;
    i += c.bytes;
  }
  return Value(std::move(out));
}

// Whether there is a character and all are of one of the classes.
template <CharClass a, CharClass b>
Result<Value> AllOf(Runtime&, const Value& self, const Arguments&) {
  const std::string& bytes = self.text().bytes();
  for (size_t i = 0; i < bytes.size();) {
    const DecodedChar c = DecodeUtf8(bytes, i);
    const CharClass found = ClassOf(c.code);
    if (found != a && found != b) return Value(false);
    i += c.bytes;
  }
  return Value(!bytes.empty());
}

template <bool upper>
Result<Value> IsCase(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const bool holds,
                   ApplyTest(runtime, upper ? "upper" : "lower", self, arguments));
  return Value(holds);
}

constexpr auto kLetter = CharClass::kLetter;
constexpr auto kNumber = CharClass::kNumber;
constexpr auto kSpace = CharClass::kSpace;
constexpr std::array<MethodEntry, 37> kStringMethods = {{
    {"strip", StripMethod<true, true>},
    {"lstrip", StripMethod<true, false>},
    {"rstrip", StripMethod<false, true>},
    {"startswith", HasAffix<true>},
    {"endswith", HasAffix<false>},
    {"split", SplitMethod<false>},
    {"rsplit", SplitMethod<true>},
    {"splitlines", SplitLines},
    {"replace", ReplaceMethod},
    {"join", JoinMethod},
    {"find", FindMethod<false, false>},
    {"rfind", FindMethod<true, false>},
    {"index", FindMethod<false, true>},
    {"rindex", FindMethod<true, true>},
    {"count", CountMethod},
    {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>},
    {"partition", Partition<false>},
    {"rpartition", Partition<true>},
    {"ljust", Pad<-1>},
    {"center", Pad<0>},
    {"rjust", Pad<1>},
    {"zfill", ZeroFill},
    {"title", Title},
    {"upper",
     [](Runtime&, const Value& self, const Arguments&) -> Result<Value> {
       return Value(MapCase(self.text(), true));
     }},
    {"lower",
     [](Runtime&, const Value& self, const Arguments&) -> Result<Value> {
       return Value(MapCase(self.text(), false));
     }},
    {"casefold",
     [](Runtime&, const Value& self, const Arguments&) -> Result<Value> {
       return Value(MapCase(self.text(), false));
     }},
    {"capitalize",
     [](Runtime&, const Value& self, const Arguments&) -> Result<Value> {
       return Value(Capitalize(self.text()));
     }},
    {"format",
     [](Runtime& runtime, const Value& self, const Arguments& arguments) -> Result<Value> {
       return FormatBraces(runtime, self.text(), arguments);
     }},
    {"isalpha", AllOf<kLetter, kLetter>},
    {"isdigit", AllOf<kNumber, kNumber>},
    {"isnumeric", AllOf<kNumber, kNumber>},
    {"isdecimal", AllOf<kNumber, kNumber>},
    {"isalnum", AllOf<kLetter, kNumber>},
    {"isspace", AllOf<kSpace, kSpace>},
    {"isupper", IsCase<true>},
    {"islower", IsCase<false>},
}};

Result<Value> DictItems(Runtime& runtime, const Value& self, const Arguments&) {
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict().items) {
    items.push_back(MakeList({key, value}, true));
  }
  return runtime.Made(std::move(items));
}

Result<Value> DictGet(Runtime&, const Value& self, const Arguments& arguments) {
  const Value* key = arguments.Get(0, "key");
  if (key == nullptr) return InvalidArgument("get() needs a key");
  if (const Value* found = self.dict().Find(*key)) return *found;
  const Value* fallback = arguments.Get(1, "default");
  return fallback == nullptr ? Value(None{}) : *fallback;
}

constexpr std::array<MethodEntry, 5> kDictMethods = {{
    {"items", DictItems},
    {"get", DictGet},
    {"keys",
     [](Runtime& runtime, const Value& self, const Arguments&) -> Result<Value> {
       ASSIGN_OR_RETURN(std::vector<Value> keys, Iterate(runtime, self));
       return runtime.Made(std::move(keys));
     }},
    {"values",
     [](Runtime& runtime, const Value& self, const Arguments&) -> Result<Value> {
       std::vector<Value> values;
       for (const auto& item : self.dict().items) values.push_back(item.second);
       return runtime.Made(std::move(values));
     }},
    {"copy", [](Runtime&, const Value& self, const Arguments&) -> Result<Value> { return self; }},
}};

Result<Value> ListIndex(Runtime&, const Value& self, const Arguments& arguments) {
  const Value* wanted = arguments.Get(0, "value");
  if (wanted == nullptr) return InvalidArgument("index() needs a value");
  const auto& items = self.list().items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (Equal(items[i], *wanted)) return Value(static_cast<int64_t>(i));
  }
  return InvalidArgument("value is not in the list");
}

Result<Value> ListCount(Runtime&, const Value& self, const Arguments& arguments) {
  const Value* wanted = arguments.Get(0, "value");
  if (wanted == nullptr) return InvalidArgument("count() needs a value");
  const auto& items = self.list().items;
  return Value(static_cast<int64_t>(std::count_if(
      items.begin(), items.end(), [&](const Value& item) { return Equal(item, *wanted); })));
}

constexpr std::array<MethodEntry, 3> kListMethods = {{
    {"index", ListIndex},
    {"count", ListCount},
    {"copy", [](Runtime&, const Value& self, const Arguments&) -> Result<Value> { return self; }},
}};

template <size_t n>
MethodFunction Find(const std::array<MethodEntry, n>& entries, std::string_view name) {
  for (const MethodEntry& entry : entries) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

MethodFunction FindMethodOf(const Value& value, std::string_view name) {
  if (value.is_string()) return Find(kStringMethods, name);
  if (value.is_dict()) return Find(kDictMethods, name);
  if (value.is_list()) return Find(kListMethods, name);
  return nullptr;
}

}  // namespace

bool HasMethod(const Value& value, std::string_view name) {
  return FindMethodOf(value, name) != nullptr;
}

Result<Value> CallMethod(Runtime& runtime, const Value& self, std::string_view name,
                         const Arguments& arguments) {
  RETURN_IF_ERROR(runtime.Charge(self.is_string() ? self.text().size() / 32 : self.weight() / 16));
  return FindMethodOf(self, name)(runtime, self, arguments);
}

}  // namespace muselet::jinja
