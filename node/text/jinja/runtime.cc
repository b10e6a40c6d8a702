#include "node/text/jinja/runtime.h"

#include <algorithm>

#include "node/text/jinja/builtins.h"
#include "node/text/utf8.h"

namespace muselet::jinja {

const Value* Arguments::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : keywords) {
    if (key == name) return &value;
  }
  return nullptr;
}

const Value* Namespace::Find(std::string_view name) const {
  for (const auto& [key, value] : members) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::Set(std::string_view name, Value value) {
  for (auto& [key, old] : members) {
    if (key != name) continue;
    old = std::move(value);
    return;
  }
  members.emplace_back(std::string(name), std::move(value));
}

Status Runtime::Charge(uint64_t steps) {
  steps_ += steps;
  if (steps_ <= limits_.steps_max) return OkStatus();
  return ResourceExhausted("the template takes more than " + std::to_string(limits_.steps_max) +
                           " steps");
}

Result<Value> Runtime::Made(Text text) {
  if (text.size() > limits_.text_bytes_max) {
    return ResourceExhausted("the template makes a text of more than " +
                             std::to_string(limits_.text_bytes_max) + " bytes");
  }
  RETURN_IF_ERROR(Charge(text.size() / 32));
  return Value(std::move(text));
}

Result<Value> Runtime::Made(std::vector<Value> items, bool is_tuple) {
  RETURN_IF_ERROR(Charge(items.size()));
  return Checked(MakeList(std::move(items), is_tuple));
}

Result<Value> Runtime::Made(std::vector<std::pair<Value, Value>> items) {
  RETURN_IF_ERROR(Charge(items.size() * (1 + items.size() / 16)));
  return Checked(MakeDict(std::move(items)));
}

Result<Value> Runtime::Checked(Value container) const {
  if (container.depth() > limits_.value_depth_max) {
    return ResourceExhausted("the template nests a " + TypeName(container) + " too deeply");
  }
  if (container.weight() > limits_.value_weight_max) {
    return ResourceExhausted("the template makes too large a " + TypeName(container));
  }
  return container;
}

Status Runtime::Raise(std::string message) {
  raised_ = true;
  return InvalidArgument(std::move(message));
}

Result<std::vector<Value>> Iterate(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  if (value.is_list()) {
    RETURN_IF_ERROR(runtime.Charge(value.list().items.size()));
    return value.list().items;
  }
  if (value.is_undefined()) return items;
  if (value.is_dict()) {
    RETURN_IF_ERROR(runtime.Charge(value.dict().items.size()));
    for (const auto& item : value.dict().items) items.push_back(item.first);
    return items;
  }
  if (!value.is_string())
    return InvalidArgument("'" + TypeName(value) + "' object is not iterable");
  const Text& text = value.text();
  RETURN_IF_ERROR(runtime.Charge(text.size()));
  for (size_t i = 0; i < text.size();) {
    const size_t end = i + DecodeUtf8(text.bytes(), i).bytes;
    items.emplace_back(text.Slice(i, end));
    i = end;
  }
  return items;
}

Result<int64_t> Length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_list()) return static_cast<int64_t>(value.list().items.size());
  if (value.is_dict()) return static_cast<int64_t>(value.dict().items.size());
  if (value.is_string()) return static_cast<int64_t>(CharCount(value.text().bytes()));
  return InvalidArgument("object of type '" + TypeName(value) + "' has no len()");
}

namespace {

Result<Value> UndefinedFault(const Value& value) {
  const std::string* name = value.undefined().name;
  return InvalidArgument(name != nullptr ? "'" + *name + "' is undefined" : "value is undefined");
}

// The item with an index that may count from the end; undefined if there is none.
Result<Value> IndexedItem(const Value& value, int64_t index) {
  if (value.is_list()) {
    const auto& items = value.list().items;
    const auto size = static_cast<int64_t>(items.size());
    if (index < 0) index += size;
    return index < 0 || index >= size ? Value() : items[static_cast<size_t>(index)];
  }
  const Text& text = value.text();
  const auto size = static_cast<int64_t>(CharCount(text.bytes()));
  if (index < 0) index += size;
  if (index < 0 || index >= size) return Value();
  const size_t begin = CharOffset(text.bytes(), static_cast<size_t>(index));
  return Value(text.Slice(begin, begin + DecodeUtf8(text.bytes(), begin).bytes));
}

}  // namespace

Result<Value> GetAttribute(Runtime& runtime, const Value& value, const std::string& name) {
  if (value.is_undefined()) return UndefinedFault(value);
  if (value.is_object()) return GetMember(runtime, *value.object(), name);
  if (HasMethod(value, name)) return Value(runtime.New<Method>(value, name));
  if (value.is_dict()) {
    if (const Value* item = value.dict().Find(name)) return *item;
  }
  return Value(Undefined{&name});
}

Result<Value> GetItem(Runtime& runtime, const Value& value, const Value& key) {
  if (value.is_undefined()) return UndefinedFault(value);
  if (value.is_dict()) {
    RETURN_IF_ERROR(runtime.Charge(value.dict().items.size() / 16));
    if (const Value* item = value.dict().Find(key)) return *item;
  } else if ((value.is_list() || value.is_string()) && key.is_integral()) {
    if (value.is_string()) RETURN_IF_ERROR(runtime.Charge(value.text().size() / 32));
    return IndexedItem(value, key.integer());
  }
  if (!key.is_string()) return Value();
  const std::string& name = key.text().bytes();
  if (value.is_object()) return GetMember(runtime, *value.object(), name);
  if (HasMethod(value, name)) return Value(runtime.New<Method>(value, name));
  return Value();
}

Result<bool> Contains(const Value& haystack, const Value& needle) {
  if (haystack.is_string()) {
    if (!needle.is_string()) {
      return InvalidArgument("'in <string>' requires string as left operand, not " +
                             TypeName(needle));
    }
    return haystack.text().bytes().find(needle.text().bytes()) != std::string::npos;
  }
  if (haystack.is_dict()) return haystack.dict().Find(needle) != nullptr;
  if (haystack.is_undefined()) return false;
  if (!haystack.is_list()) {
    return InvalidArgument("argument of type '" + TypeName(haystack) + "' is not iterable");
  }
  const auto& items = haystack.list().items;
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& item) { return Equal(item, needle); });
}

namespace {

// Python's slice.indices.
struct SliceRange {
  int64_t start, stop, step;
};

Result<SliceRange> SliceIndices(const Value& start, const Value& stop, const Value& step,
                                int64_t size) {
  for (const Value* part : {&start, &stop, &step}) {
    if (!part->is_none() && !part->is_undefined() && !part->is_integral()) {
      return InvalidArgument("slice indices must be integers or None");
    }
  }
  SliceRange range{};
  range.step = step.is_integral() ? step.integer() : 1;
  if (range.step == 0) return InvalidArgument("slice step cannot be zero");
  const bool down = range.step < 0;
  const auto bound = [&](const Value& part, int64_t fallback) {
    if (!part.is_integral()) return fallback;
    const int64_t low = down ? -1 : 0;
    const int64_t high = down ? size - 1 : size;
    const int64_t index = part.integer();
    return index < 0 ? std::max(index + size, low) : std::min(index, high);
  };
  range.start = bound(start, down ? size - 1 : 0);
  range.stop = bound(stop, down ? -1 : size);
  return range;
}

}  // namespace

Result<Value> GetSlice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
                       const Value& step) {
  if (value.is_undefined()) return UndefinedFault(value);
  if (!value.is_list() && !value.is_string()) return Value();
  ASSIGN_OR_RETURN(const int64_t size, Length(value));
  ASSIGN_OR_RETURN(const SliceRange range, SliceIndices(start, stop, step, size));
  if (value.is_string() && range.step == 1) {
    const Text& text = value.text();
    RETURN_IF_ERROR(runtime.Charge(text.size() / 16));
    const int64_t end = std::max(range.start, range.stop);
    const size_t first = CharOffset(text.bytes(), static_cast<size_t>(range.start));
    const size_t length = CharOffset(std::string_view(text.bytes()).substr(first),
                                     static_cast<size_t>(end - range.start));
    return runtime.Made(text.Slice(first, first + length));
  }
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, value));
  std::vector<Value> taken;
  const auto inside = [&](int64_t i) { return range.step > 0 ? i < range.stop : i > range.stop; };
  for (int64_t i = range.start; inside(i);) {
    taken.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, range.step, &i)) break;
  }
  if (value.is_list()) return runtime.Made(std::move(taken), value.list().is_tuple);
  Text text;
  for (const Value& item : taken) text.Append(item.text());
  return runtime.Made(std::move(text));
}

}  // namespace muselet::jinja
