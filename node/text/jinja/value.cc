#include "node/text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "node/text/utf8.h"

namespace muselet::jinja {

bool Value::Truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0.0;
  if (is_string()) return text().size() != 0;
  if (is_list()) return !list().items.empty();
  if (is_dict()) return !dict().items.empty();
  return true;
}

uint32_t Value::depth() const {
  if (is_list()) return list().depth;
  if (is_dict()) return dict().depth;
  return 0;
}

uint64_t Value::weight() const {
  if (is_list()) return list().weight;
  if (is_dict()) return dict().weight;
  return is_string() ? 1 + text().size() / 16 : 1;
}

const Value* Dict::Find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    if (name.is_string() && name.text().bytes() == key) return &value;
  }
  return nullptr;
}

const Value* Dict::Find(const Value& key) const {
  if (key.is_string()) return Find(std::string_view(key.text().bytes()));
  for (const auto& [name, value] : items) {
    if (Equal(name, key)) return &value;
  }
  return nullptr;
}

Value MakeList(std::vector<Value> items, bool is_tuple) {
  auto list = std::make_shared<List>();
  for (const Value& item : items) {
    list->depth = std::max(list->depth, item.depth() + 1);
    list->weight += item.weight();
  }
  list->items = std::move(items);
  list->is_tuple = is_tuple;
  return Value(std::shared_ptr<const List>(std::move(list)));
}

Value MakeDict(std::vector<std::pair<Value, Value>> items) {
  std::vector<std::pair<Value, Value>> distinct;
  for (auto& [key, value] : items) {
    const auto same =
        std::find_if(distinct.begin(), distinct.end(),
                     [&, &wanted = key](const auto& item) { return Equal(item.first, wanted); });
    if (same != distinct.end()) {
      same->second = std::move(value);
    } else {
      distinct.emplace_back(std::move(key), std::move(value));
    }
  }
  return MakeDistinctDict(std::move(distinct));
}

Value MakeDistinctDict(std::vector<std::pair<Value, Value>> items) {
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, value] : items) {
    dict->depth = std::max({dict->depth, key.depth() + 1, value.depth() + 1});
    dict->weight += key.weight() + value.weight();
  }
  dict->items = std::move(items);
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

bool Equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.is_string() && b.is_string()) return a.text().bytes() == b.text().bytes();
  if (a.is_none() || a.is_undefined()) {
    return a.is_none() == b.is_none() && a.is_undefined() == b.is_undefined();
  }
  if (a.is_list() && b.is_list()) {
    const List& left = a.list();
    const List& right = b.list();
    return left.is_tuple == right.is_tuple &&
           std::equal(left.items.begin(), left.items.end(), right.items.begin(), right.items.end(),
                      Equal);
  }
  if (a.is_dict() && b.is_dict()) {
    if (a.dict().items.size() != b.dict().items.size()) return false;
    return std::all_of(a.dict().items.begin(), a.dict().items.end(), [&](const auto& item) {
      const Value* other = b.dict().Find(item.first);
      return other != nullptr && Equal(item.second, *other);
    });
  }
  return a.is_object() && b.is_object() && a.object() == b.object();
}

bool Compare(const Value& a, const Value& b, int& order) {
  const auto three_way = [&](const auto& x, const auto& y) {
    order = x < y ? -1 : y < x ? 1 : 0;
    return true;
  };
  if (a.is_integral() && b.is_integral()) return three_way(a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return three_way(a.number(), b.number());
  if (a.is_string() && b.is_string()) return three_way(a.text().bytes(), b.text().bytes());
  if (!a.is_list() || !b.is_list() || a.list().is_tuple != b.list().is_tuple) return false;
  const auto& left = a.list().items;
  const auto& right = b.list().items;
  for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    if (!Equal(left[i], right[i])) return Compare(left[i], right[i], order);
  }
  return three_way(left.size(), right.size());
}

std::string TypeName(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "NoneType";
  if (value.is_bool()) return "bool";
  if (value.is_int()) return "int";
  if (value.is_float()) return "float";
  if (value.is_string()) return "str";
  if (value.is_list()) return value.list().is_tuple ? "tuple" : "list";
  if (value.is_dict()) return "dict";
  return "object";
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // The shortest digits that read back, as Python's repr; %r goes to exponents at 1e16 and 1e-4.
  const double magnitude = std::fabs(value);
  const bool exponent = magnitude != 0.0 && (magnitude >= 1e16 || magnitude < 1e-4);
  char buffer[400];
  const auto format = exponent ? std::chars_format::scientific : std::chars_format::fixed;
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, format).ptr;
  std::string text(buffer, end);
  if (!exponent && text.find('.') == std::string::npos) text += ".0";
  return text;
}

namespace {

// Python's repr of a str: single quotes unless only single quotes stand in the text.
std::string QuotedRepr(const std::string& text) {
  const bool doubles = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = doubles ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeUtf8(text, i);
    const std::string_view bytes = std::string_view(text).substr(i, c.bytes);
    i += c.bytes;
    if (c.code == '\\' || c.code == static_cast<unsigned char>(quote)) {
      out += '\\';
      out += bytes;
    } else if (c.code == '\n') {
      out += "\\n";
    } else if (c.code == '\r') {
      out += "\\r";
    } else if (c.code == '\t') {
      out += "\\t";
    } else if (!IsPrintable(c.code)) {
      const auto code = static_cast<uint32_t>(c.code);
      out += code < 0x100     ? fmt::format("\\x{:02x}", code)
             : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                              : fmt::format("\\U{:08x}", code);
    } else {
      out += bytes;
    }
  }
  return out + quote;
}

void AppendListRepr(const List& list, Text& out) {
  out.Append(list.is_tuple ? "(" : "[", false);
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.Append(", ", false);
    AppendRepr(list.items[i], out);
  }
  if (list.is_tuple && list.items.size() == 1) out.Append(",", false);
  out.Append(list.is_tuple ? ")" : "]", false);
}

}  // namespace

void AppendRepr(const Value& value, Text& out) {
  if (value.is_string()) {
    out.Append(value.text().Derived(QuotedRepr(value.text().bytes())));
  } else if (value.is_list()) {
    AppendListRepr(value.list(), out);
  } else if (value.is_dict()) {
    out.Append("{", false);
    bool first = true;
    for (const auto& [key, item] : value.dict().items) {
      if (!first) out.Append(", ", false);
      first = false;
      AppendRepr(key, out);
      out.Append(": ", false);
      AppendRepr(item, out);
    }
    out.Append("}", false);
  } else if (value.is_undefined()) {
    out.Append("Undefined", false);
  } else {
    out.Append(ToText(value));
  }
}

Text ToText(const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is_undefined()) return Text();
  if (value.is_none()) return Text("None");
  if (value.is_bool()) return Text(value.boolean() ? "True" : "False");
  if (value.is_int()) return Text(std::to_string(value.integer()));
  if (value.is_float()) return Text(FloatRepr(value.number()));
  if (value.is_object()) return Text("<object>");
  Text out;
  AppendRepr(value, out);
  return out;
}

size_t CharCount(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

size_t CharOffset(std::string_view text, size_t index) {
  size_t offset = 0;
  while (index > 0 && offset < text.size()) {
    offset += DecodeUtf8(text, offset).bytes;
    --index;
  }
  return offset;
}

}  // namespace muselet::jinja
