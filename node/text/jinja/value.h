// What a template computes with: Python's none, bool, int, float, str, list, tuple, dict, jinja2's
// undefined, and objects of the interpreter (namespaces, macros, loops, functions).
//
// Strings, lists and dicts are immutable and shared; objects belong to the running interpreter and
// are gone with it. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "node/text/jinja/text.h"

namespace muselet::jinja {

class Object;
class Value;

struct Undefined {
  const std::string* name = nullptr;  // what was looked for, if it is known; lives in the template
};
struct None {};

struct List;
struct Dict;

class Value {
 public:
  Value() = default;                                                          // undefined
  Value(Undefined undefined) : data_(undefined) {}                            // NOLINT
  Value(None none) : data_(none) {}                                           // NOLINT
  Value(bool value) : data_(value) {}                                         // NOLINT
  Value(int64_t value) : data_(value) {}                                      // NOLINT
  Value(double value) : data_(value) {}                                       // NOLINT
  Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}  // NOLINT
  Value(std::shared_ptr<const List> list) : data_(std::move(list)) {}         // NOLINT
  Value(std::shared_ptr<const Dict> dict) : data_(std::move(dict)) {}         // NOLINT
  Value(Object* object) : data_(object) {}                                    // NOLINT
  static Value String(std::string_view bytes) { return Value(Text(std::string(bytes))); }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_string() const { return std::holds_alternative<std::shared_ptr<const Text>>(data_); }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<const List>>(data_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<const Dict>>(data_); }
  bool is_object() const { return std::holds_alternative<Object*>(data_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }

  // REQUIRES: the value is of the type.
  const Undefined& undefined() const { return std::get<Undefined>(data_); }
  bool boolean() const { return std::get<bool>(data_); }
  const Text& text() const { return *std::get<std::shared_ptr<const Text>>(data_); }
  const List& list() const { return *std::get<std::shared_ptr<const List>>(data_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Object* object() const { return std::get<Object*>(data_); }
  // bool or int as int. REQUIRES: is_bool() or is_int().
  int64_t integer() const { return is_bool() ? int64_t{boolean()} : std::get<int64_t>(data_); }
  // REQUIRES: is_number().
  double number() const {
    return is_float() ? std::get<double>(data_) : static_cast<double>(integer());
  }
  bool is_integral() const { return is_bool() || is_int(); }

  // Python's truth: false for undefined, none, zero and what is empty.
  bool Truth() const;
  // Nesting of lists and dicts below, 0 for scalars.
  uint32_t depth() const;
  // What printing or comparing the whole costs: nodes, and 1 for each 16 bytes of text. A value
  // that stands in several places counts each time.
  uint64_t weight() const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>, Object*>
      data_;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  uint32_t depth = 1;
  uint64_t weight = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in order of insertion
  uint32_t depth = 1;
  uint64_t weight = 1;
  // Null if there is none.
  const Value* Find(std::string_view key) const;
  const Value* Find(const Value& key) const;
};

Value MakeList(std::vector<Value> items, bool is_tuple = false);
// Later pairs of an equal key replace earlier ones, in the earlier one's place.
Value MakeDict(std::vector<std::pair<Value, Value>> items);
// The same without looking for equal keys. REQUIRES: there are none.
Value MakeDistinctDict(std::vector<std::pair<Value, Value>> items);

// Python's ==.
bool Equal(const Value& a, const Value& b);
// -1, 0, 1 for two numbers, two strings or two lists; false if the types have no order.
bool Compare(const Value& a, const Value& b, int& order);
// Python's name of the type, for messages: "str", "NoneType", ...
std::string TypeName(const Value& value);

// str(value) and repr(value), as Python prints them.
Text ToText(const Value& value);
void AppendRepr(const Value& value, Text& out);
std::string FloatRepr(double value);

// The number of characters in valid UTF-8, and the byte offset of the character with that number.
size_t CharCount(std::string_view text);
size_t CharOffset(std::string_view text, size_t index);

}  // namespace muselet::jinja
