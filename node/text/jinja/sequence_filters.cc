// Filters over lists and dicts.
#include <algorithm>
#include <array>

#include "node/text/jinja/builtins.h"
#include "node/text/jinja/filter_table.h"

namespace muselet::jinja {
namespace {

// value.a.b.0: jinja2's make_attrgetter. `attribute` is a dotted string or an integer.
Result<Value> Follow(Runtime& runtime, const Value& value, const Value& attribute) {
  if (!attribute.is_string()) return GetItem(runtime, value, attribute);
  Value at = value;
  const std::string& path = attribute.text().bytes();
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    const bool number = !part.empty() && part.size() < 10 &&
                        part.find_first_not_of("0123456789") == std::string::npos;
    const Value key = number ? Value(int64_t{std::stol(part)}) : Value::String(part);
    ASSIGN_OR_RETURN(at, GetItem(runtime, at, key));
    begin = end + 1;
  }
  return at;
}

// The key that sort, unique, min, max and groupby compare by.
Result<Value> KeyOf(Runtime& runtime, const Value& item, const Value* attribute,
                    bool case_sensitive) {
  Value key = item;
  if (attribute != nullptr && !attribute->is_none()) {
    ASSIGN_OR_RETURN(key, Follow(runtime, item, *attribute));
  }
  if (!case_sensitive && key.is_string()) return Value(MapCase(key.text(), false));
  return key;
}

bool Flag(const Arguments& arguments, size_t index, std::string_view name) {
  const Value* given = arguments.Get(index, name);
  return given != nullptr && given->Truth();
}

struct Keyed {
  Value key;
  Value item;
};

Result<std::vector<Keyed>> Sorted(Runtime& runtime, const std::vector<Value>& items,
                                  const Value* attribute, bool case_sensitive, bool reverse) {
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, KeyOf(runtime, item, attribute, case_sensitive));
    keyed.push_back({std::move(key), item});
    int order = 0;  // all must be comparable before std::stable_sort may see them
    if (!Compare(keyed.back().key, keyed.front().key, order)) {
      return InvalidArgument("'<' not supported between '" + TypeName(keyed.back().key) +
                             "' and '" + TypeName(keyed.front().key) + "'");
    }
  }
  RETURN_IF_ERROR(runtime.Charge(keyed.size() * 8));
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    int order = 0;
    Compare(a.key, b.key, order);
    return reverse ? order > 0 : order < 0;
  });
  return keyed;
}

Result<Value> Sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                   Sorted(runtime, items, arguments.Get(2, "attribute"),
                          Flag(arguments, 1, "case_sensitive"), Flag(arguments, 0, "reverse")));
  std::vector<Value> sorted;
  for (const Keyed& entry : keyed) sorted.push_back(entry.item);
  return runtime.Made(std::move(sorted));
}

Result<Value> DictSort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!input.is_dict()) return InvalidArgument("dictsort needs a dict, not " + TypeName(input));
  const Value* by = arguments.Get(1, "by");
  const bool by_value = by != nullptr && ToText(*by).bytes() == "value";
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.dict().items) pairs.push_back(MakeList({key, value}, true));
  const Value position(int64_t{by_value ? 1 : 0});
  ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                   Sorted(runtime, pairs, &position, Flag(arguments, 0, "case_sensitive"),
                          Flag(arguments, 2, "reverse")));
  std::vector<Value> sorted;
  for (const Keyed& entry : keyed) sorted.push_back(entry.item);
  return runtime.Made(std::move(sorted));
}

Result<Value> GroupBy(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value* attribute = arguments.Get(0, "attribute");
  if (attribute == nullptr) return InvalidArgument("groupby needs an attribute");
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                   Sorted(runtime, items, attribute, Flag(arguments, 2, "case_sensitive"), false));
  std::vector<Value> groups;
  for (size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> members;
    size_t end = begin;
    for (; end < keyed.size() && Equal(keyed[end].key, keyed[begin].key); ++end) {
      members.push_back(keyed[end].item);
    }
    ASSIGN_OR_RETURN(const Value grouper, Follow(runtime, members.front(), *attribute));
    groups.push_back(MakeList({grouper, MakeList(std::move(members))}, true));
    begin = end;
  }
  return runtime.Made(std::move(groups));
}

Result<Value> Unique(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  std::vector<Value> seen;
  std::vector<Value> kept;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value key, KeyOf(runtime, item, arguments.Get(1, "attribute"),
                                            Flag(arguments, 0, "case_sensitive")));
    RETURN_IF_ERROR(runtime.Charge(1 + seen.size() / 8));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& old) { return Equal(old, key); })) {
      continue;
    }
    seen.push_back(key);
    kept.push_back(item);
  }
  return runtime.Made(std::move(kept));
}

template <bool greatest>
Result<Value> Extreme(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  if (items.empty()) return Value();
  ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                   Sorted(runtime, items, arguments.Get(1, "attribute"),
                          Flag(arguments, 0, "case_sensitive"), greatest));
  return keyed.front().item;
}

Result<Value> Sum(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  const Value* attribute = arguments.Get(0, "attribute");
  const Value* start = arguments.Get(1, "start");
  Value total = start == nullptr ? Value(int64_t{0}) : *start;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value part, KeyOf(runtime, item, attribute, true));
    ASSIGN_OR_RETURN(total, Arithmetic(runtime, "+", total, part));
  }
  return total;
}

Result<Value> Join(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value* separator = arguments.Get(0, "d");
  const Value* attribute = arguments.Get(1, "attribute");
  const Text between = separator == nullptr ? Text() : ToText(*separator);
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const Value item, KeyOf(runtime, items[i], attribute, true));
    RETURN_IF_ERROR(runtime.Charge(item.weight()));
    if (i > 0) out.Append(between);
    out.Append(ToText(item));
    if (out.size() > runtime.limits().text_bytes_max) break;
  }
  return runtime.Made(std::move(out));
}

Result<Value> Count(Runtime&, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const int64_t length, Length(input));
  return Value(length);
}

Result<Value> ToList(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(runtime, input));
  return runtime.Made(std::move(items));
}

Result<Value> First(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  return items.empty() ? Value() : items.front();
}

Result<Value> Last(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  return items.empty() ? Value() : items.back();
}

Result<Value> Reverse(Runtime& runtime, const Value& input, const Arguments&) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(runtime, input));
  std::reverse(items.begin(), items.end());
  if (!input.is_string()) return runtime.Made(std::move(items));
  Text out;
  for (const Value& item : items) out.Append(item.text());
  return runtime.Made(std::move(out));
}

Result<Value> Items(Runtime& runtime, const Value& input, const Arguments&) {
  if (input.is_undefined()) return MakeList({});
  if (!input.is_dict()) return InvalidArgument("Can only get item pairs from a mapping.");
  return CallMethod(runtime, input, "items", {});
}

Result<Value> Attr(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value* name = arguments.Get(0, "name");
  if (name == nullptr) return InvalidArgument("attr needs a name");
  const std::string member = ToText(*name).bytes();
  if (input.is_object()) return GetMember(runtime, *input.object(), member);
  if (HasMethod(input, member)) return Value(runtime.New<Method>(input, member));
  return Value();
}

// The arguments behind the first `count`.
Arguments Behind(const Arguments& arguments, size_t count) {
  Arguments rest;
  for (size_t i = count; i < arguments.positional.size(); ++i) {
    rest.positional.push_back(arguments.positional[i]);
  }
  rest.keywords = arguments.keywords;
  return rest;
}

Result<Value> Map(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  const Value* attribute = arguments.Get(Arguments::npos, "attribute");
  const Value* fallback = arguments.Get(Arguments::npos, "default");
  std::vector<Value> mapped;
  if (attribute != nullptr) {
    for (const Value& item : items) {
      ASSIGN_OR_RETURN(Value value, Follow(runtime, item, *attribute));
      mapped.push_back(value.is_undefined() && fallback != nullptr ? *fallback : std::move(value));
    }
    return runtime.Made(std::move(mapped));
  }
  if (arguments.positional.empty() || !arguments.positional[0].is_string()) {
    return InvalidArgument("map requires a filter argument");
  }
  const std::string& name = arguments.positional[0].text().bytes();
  if (!IsKnownFilter(name)) return InvalidArgument("no filter named '" + name + "'");
  const Arguments rest = Behind(arguments, 1);
  for (const Value& item : items) {
    RETURN_IF_ERROR(runtime.Charge(1));
    ASSIGN_OR_RETURN(Value value, ApplyFilter(runtime, name, item, rest));
    mapped.push_back(std::move(value));
  }
  return runtime.Made(std::move(mapped));
}

// select, reject, selectattr, rejectattr: items for which a test (or truth) holds, or does not.
template <bool by_attribute, bool wanted>
Result<Value> Select(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  constexpr size_t kTestAt = by_attribute ? 1 : 0;
  if (by_attribute && arguments.positional.empty()) {
    return InvalidArgument("missing parameter for attribute name");
  }
  const bool tested = arguments.positional.size() > kTestAt;
  const std::string name = tested ? ToText(arguments.positional[kTestAt]).bytes() : "";
  if (tested && !IsKnownTest(name)) return InvalidArgument("no test named '" + name + "'");
  const Arguments rest = Behind(arguments, kTestAt + 1);
  std::vector<Value> kept;
  for (const Value& item : items) {
    RETURN_IF_ERROR(runtime.Charge(1));
    Value subject = item;
    if (by_attribute) {
      ASSIGN_OR_RETURN(subject, Follow(runtime, item, arguments.positional[0]));
    }
    bool holds = subject.Truth();
    if (tested) {
      ASSIGN_OR_RETURN(holds, ApplyTest(runtime, name, subject, rest));
    }
    if (holds == wanted) kept.push_back(item);
  }
  return runtime.Made(std::move(kept));
}

Result<Value> Batch(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value* count = arguments.Get(0, "linecount");
  if (count == nullptr || !count->is_integral() || count->integer() < 1) {
    return InvalidArgument("batch needs a positive number");
  }
  const Value* fill = arguments.Get(1, "fill_with");
  const auto size = static_cast<size_t>(count->integer());
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  std::vector<Value> batches;
  for (size_t begin = 0; begin < items.size(); begin += std::min(size, items.size() - begin)) {
    const size_t end = begin + std::min(size, items.size() - begin);
    std::vector<Value> batch(items.begin() + static_cast<std::ptrdiff_t>(begin),
                             items.begin() + static_cast<std::ptrdiff_t>(end));
    const bool filled = fill != nullptr && !fill->is_none() && size <= items.size() + 1024;
    if (filled) batch.resize(size, *fill);
    ASSIGN_OR_RETURN(Value made, runtime.Made(std::move(batch)));
    batches.push_back(std::move(made));
  }
  return runtime.Made(std::move(batches));
}

Result<Value> Slice(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value* count = arguments.Get(0, "slices");
  if (count == nullptr || !count->is_integral() || count->integer() < 1 ||
      count->integer() > 10'000) {
    return InvalidArgument("slice needs a positive number");
  }
  const Value* fill = arguments.Get(1, "fill_with");
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, input));
  const auto slices = static_cast<size_t>(count->integer());
  const size_t each = items.size() / slices;
  const size_t longer = items.size() % slices;
  std::vector<Value> out;
  size_t begin = 0;
  for (size_t i = 0; i < slices; ++i) {
    const size_t end = begin + each + (i < longer ? 1 : 0);
    std::vector<Value> part(items.begin() + static_cast<std::ptrdiff_t>(begin),
                            items.begin() + static_cast<std::ptrdiff_t>(end));
    if (fill != nullptr && !fill->is_none() && i >= longer) part.push_back(*fill);
    ASSIGN_OR_RETURN(Value made, runtime.Made(std::move(part)));
    out.push_back(std::move(made));
    begin = end;
  }
  return runtime.Made(std::move(out));
}

constexpr std::array<FilterEntry, 23> kSequenceFilters = {{
    {"length", Count},
    {"count", Count},
    {"list", ToList},
    {"first", First},
    {"last", Last},
    {"reverse", Reverse},
    {"items", Items},
    {"attr", Attr},
    {"join", Join},
    {"map", Map},
    {"select", Select<false, true>},
    {"reject", Select<false, false>},
    {"selectattr", Select<true, true>},
    {"rejectattr", Select<true, false>},
    {"sort", Sort},
    {"dictsort", DictSort},
    {"groupby", GroupBy},
    {"unique", Unique},
    {"min", Extreme<false>},
    {"max", Extreme<true>},
    {"sum", Sum},
    {"batch", Batch},
    {"slice", Slice},
}};

}  // namespace

std::span<const FilterEntry> SequenceFilters() {
  return kSequenceFilters;
}

}  // namespace muselet::jinja
