// json.dumps, with the taint of each string kept.
#include <fmt/format.h>

#include <algorithm>

#include "node/text/jinja/builtins.h"
#include "node/text/utf8.h"

namespace muselet::jinja {
namespace {

struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  std::string indent;  // one level; "" with pretty = false
  bool pretty = false;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Text& out) : style_(style), out_(out) {}

  Status Write(const Value& value, size_t level) {
    if (value.is_none()) {
      out_.Append("null", false);
    } else if (value.is_bool()) {
      out_.Append(value.boolean() ? "true" : "false", false);
    } else if (value.is_int()) {
      out_.Append(std::to_string(value.integer()), false);
    } else if (value.is_float()) {
      out_.Append(FloatText(value.number()), false);
    } else if (value.is_string()) {
      WriteString(value.text());
    } else if (value.is_list()) {
      return WriteList(value.list(), level);
    } else if (value.is_dict()) {
      return WriteDict(value.dict(), level);
    } else {
      return InvalidArgument("Object of type " + TypeName(value) + " is not JSON serializable");
    }
    return OkStatus();
  }

 private:
  static std::string FloatText(double value) {
    if (value != value) return "NaN";
    if (value - value != 0.0) return value > 0 ? "Infinity" : "-Infinity";
    return FloatRepr(value);
  }

  void WriteString(const Text& text) {
    std::string quoted = "\"";
    for (size_t i = 0; i < text.size();) {
      const DecodedChar c = DecodeUtf8(text.bytes(), i);
      AppendEscaped(c.code, std::string_view(text.bytes()).substr(i, c.bytes), quoted);
      i += c.bytes;
    }
    quoted += '"';
    out_.Append(text.Derived(std::move(quoted)));
  }

  void AppendEscaped(char32_t code, std::string_view bytes, std::string& out) const {
    constexpr std::string_view kFrom = "\"\\\n\r\t\f\b";
    constexpr std::string_view kTo = "\"\\nrtfb";
    const size_t simple = code < 0x80 ? kFrom.find(static_cast<char>(code)) : kFrom.npos;
    if (simple != kFrom.npos) {
      out += '\\';
      out += kTo[simple];
    } else if (code < 0x20 || (style_.ascii && code > 0x7E && code < 0x10000)) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
    } else if (style_.ascii && code >= 0x10000) {
      const auto rest = static_cast<uint32_t>(code) - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    } else {
      out += bytes;
    }
  }

  void NewLine(size_t level) {
    if (!style_.pretty) return;
    out_.Append("\n", false);
    for (size_t i = 0; i < level; ++i) out_.Append(style_.indent, false);
  }

  Status WriteList(const List& list, size_t level) {
    if (list.items.empty()) {
      out_.Append("[]", false);
      return OkStatus();
    }
    out_.Append("[", false);
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator, false);
      NewLine(level + 1);
      RETURN_IF_ERROR(Write(list.items[i], level + 1));
    }
    NewLine(level);
    out_.Append("]", false);
    return OkStatus();
  }

  Status WriteKey(const Value& key) {
    if (key.is_string()) {
      WriteString(key.text());
      return OkStatus();
    }
    if (!key.is_number() && !key.is_none()) {
      return InvalidArgument("keys must be str, int, float, bool or None, not " + TypeName(key));
    }
    out_.Append("\"", false);
    RETURN_IF_ERROR(Write(key, 0));
    out_.Append("\"", false);
    return OkStatus();
  }

  Status WriteDict(const Dict& dict, size_t level) {
    if (dict.items.empty()) {
      out_.Append("{}", false);
      return OkStatus();
    }
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [](const auto* a, const auto* b) {
        int order = 0;
        return Compare(a->first, b->first, order) && order < 0;
      });
    }
    out_.Append("{", false);
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator, false);
      NewLine(level + 1);
      RETURN_IF_ERROR(WriteKey(items[i]->first));
      out_.Append(style_.key_separator, false);
      RETURN_IF_ERROR(Write(items[i]->second, level + 1));
    }
    NewLine(level);
    out_.Append("}", false);
    return OkStatus();
  }

  const JsonStyle& style_;
  Text& out_;
};

Result<JsonStyle> ReadStyle(const Arguments& arguments) {
  JsonStyle style;
  if (const Value* ascii = arguments.Get(0, "ensure_ascii")) style.ascii = ascii->Truth();
  if (const Value* sort = arguments.Get(3, "sort_keys")) style.sort_keys = sort->Truth();
  const Value* indent = arguments.Get(1, "indent");
  if (indent != nullptr && !indent->is_none()) {
    constexpr int64_t kIndentMax = 64;
    if (indent->is_integral() && indent->integer() <= kIndentMax) {
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(indent->integer(), 0)), ' ');
    } else if (indent->is_string() && indent->text().size() <= kIndentMax) {
      style.indent = indent->text().bytes();
    } else {
      return InvalidArgument("tojson: indent: expected a small number or a short string");
    }
    style.pretty = true;
    style.item_separator = ",";
  }
  const Value* separators = arguments.Get(2, "separators");
  if (separators != nullptr && !separators->is_none()) {
    if (!separators->is_list() || separators->list().items.size() != 2 ||
        !separators->list().items[0].is_string() || !separators->list().items[1].is_string()) {
      return InvalidArgument("tojson: separators: expected two strings");
    }
    style.item_separator = separators->list().items[0].text().bytes();
    style.key_separator = separators->list().items[1].text().bytes();
  }
  return style;
}

}  // namespace

Result<Value> ToJson(Runtime& runtime, const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const JsonStyle style, ReadStyle(arguments));
  RETURN_IF_ERROR(runtime.Charge(value.weight()));
  Text out;
  RETURN_IF_ERROR(JsonWriter(style, out).Write(value, 0));
  return runtime.Made(std::move(out));
}

}  // namespace muselet::jinja
