// What lives during one rendering: the budget, the objects that templates make, and the calls that
// built-in filters, tests, methods and functions share.
//
// Made for one rendering; one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "node/text/jinja/value.h"

namespace muselet::jinja {

struct Limits {
  uint64_t steps_max = 10'000'000;        // nodes evaluated, plus 1 for each 32 bytes or item made
  size_t text_bytes_max = 32 << 20;       // of one string and of the output
  uint32_t depth_max = 1000;              // nested evaluation, macro calls included
  uint32_t value_depth_max = 100;         // nesting of one list or dict
  uint64_t value_weight_max = 4'000'000;  // Value::weight of one list or dict
  size_t range_items_max = 100'000;       // as jinja2's sandbox
};

// Arguments of a call, by position and by name.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> keywords;

  // The argument at `index` or called `name`; null if it is not given. An index of npos asks by
  // name only.
  const Value* Get(size_t index, std::string_view name) const;
  static constexpr size_t npos = SIZE_MAX;
};

class Runtime;

class Object {
 public:
  enum class Kind : uint8_t { kNamespace, kMacro, kLoop, kFunction, kMethod, kCycler, kJoiner };
  explicit Object(Kind kind) : kind(kind) {}
  virtual ~Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  const Kind kind;
};

struct Namespace : Object {
  Namespace() : Object(Kind::kNamespace) {}
  std::vector<std::pair<std::string, Value>> members;
  const Value* Find(std::string_view name) const;
  void Set(std::string_view name, Value value);
};

using BuiltinFunction = Result<Value> (*)(Runtime& runtime, const Arguments& arguments);
struct Function : Object {
  explicit Function(BuiltinFunction function) : Object(Kind::kFunction), function(function) {}
  BuiltinFunction function;
};

// x.strip without its call yet.
struct Method : Object {
  Method(Value self, std::string name)
      : Object(Kind::kMethod), self(std::move(self)), name(std::move(name)) {}
  Value self;
  std::string name;
};

struct Cycler : Object {
  explicit Cycler(std::vector<Value> items) : Object(Kind::kCycler), items(std::move(items)) {}
  std::vector<Value> items;
  size_t position = 0;
};

struct Joiner : Object {
  explicit Joiner(Value separator) : Object(Kind::kJoiner), separator(std::move(separator)) {}
  Value separator;
  bool used = false;
};

class Runtime {
 public:
  Runtime(const Limits& limits, int64_t now_unix_us) : limits_(limits), now_unix_us_(now_unix_us) {}

  const Limits& limits() const { return limits_; }
  int64_t now_unix_us() const { return now_unix_us_; }

  // Takes `steps` from the budget: kResourceExhausted when it is spent.
  Status Charge(uint64_t steps);
  // Charges for a string or a list that was made, and checks its limit.
  Result<Value> Made(Text text);
  Result<Value> Made(std::vector<Value> items, bool is_tuple = false);
  Result<Value> Made(std::vector<std::pair<Value, Value>> items);

  template <typename T, typename... Args>
  T* New(Args&&... args) {
    auto object = std::make_unique<T>(std::forward<Args>(args)...);
    T* raw = object.get();
    objects_.push_back(std::move(object));
    return raw;
  }

  // raise_exception: the template's own words, which get no line number.
  Status Raise(std::string message);
  bool raised() const { return raised_; }

 private:
  Result<Value> Checked(Value container) const;

  Limits limits_;
  int64_t now_unix_us_;
  uint64_t steps_ = 0;
  bool raised_ = false;
  std::vector<std::unique_ptr<Object>> objects_;
};

// The items that iterating over a value gives (characters, items, keys): kInvalidArgument if Python
// would not iterate over it.
Result<std::vector<Value>> Iterate(Runtime& runtime, const Value& value);
// len(value).
Result<int64_t> Length(const Value& value);
// value.name: members of objects, methods, then items.
Result<Value> GetAttribute(Runtime& runtime, const Value& value, const std::string& name);
// value[key]: items, then attributes.
Result<Value> GetItem(Runtime& runtime, const Value& value, const Value& key);
// value[start:stop:step]; undefined or none for a part that is left out.
Result<Value> GetSlice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
                       const Value& step);
// `needle in haystack`.
Result<bool> Contains(const Value& haystack, const Value& needle);

}  // namespace muselet::jinja
