// jinja2's tests: what may stand behind "is".
#include <algorithm>
#include <array>

#include "node/text/jinja/builtins.h"
#include "node/text/utf8.h"

namespace muselet::jinja {
namespace {

using TestFunction = Result<bool> (*)(const Value& value, const Arguments& arguments);
struct TestEntry {
  std::string_view name;
  TestFunction function;
};

Result<Value> Argument(const Arguments& arguments) {
  const Value* given = arguments.Get(0, "other");
  if (given == nullptr) return InvalidArgument("the test needs an argument");
  return *given;
}

template <bool less, bool equal>
Result<bool> Ordered(const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value other, Argument(arguments));
  int order = 0;
  if (!Compare(value, other, order)) {
    return InvalidArgument("'" + TypeName(value) + "' and '" + TypeName(other) + "' have no order");
  }
  return (less ? order < 0 : order > 0) || (equal && order == 0);
}

template <bool equal>
Result<bool> EqualTo(const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value other, Argument(arguments));
  return Equal(value, other) == equal;
}

Result<bool> In(const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value other, Argument(arguments));
  return Contains(other, value);
}

Result<bool> SameAs(const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value other, Argument(arguments));
  return TypeName(value) == TypeName(other) && Equal(value, other);
}

Result<int64_t> NeedInteger(const Value& value) {
  if (!value.is_integral()) return InvalidArgument("expected an integer, got " + TypeName(value));
  return value.integer();
}

template <int remainder>
Result<bool> Parity(const Value& value, const Arguments&) {
  ASSIGN_OR_RETURN(const int64_t number, NeedInteger(value));
  return (number & 1) == remainder;
}

Result<bool> DivisibleBy(const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const int64_t number, NeedInteger(value));
  const Value* divisor = arguments.Get(0, "num");
  if (divisor == nullptr) return InvalidArgument("divisibleby needs a number");
  ASSIGN_OR_RETURN(const int64_t by, NeedInteger(*divisor));
  if (by == 0) return InvalidArgument("division by zero");
  return by == -1 || number % by == 0;
}

template <bool upper>
Result<bool> Cased(const Value& value, const Arguments&) {
  const Text text = ToText(value);
  return text.size() > 0 && MapCase(text, upper).bytes() == text.bytes() &&
         MapCase(text, !upper).bytes() != text.bytes();
}

bool IsCallable(const Value& value) {
  return value.is_object() && value.object()->kind != Object::Kind::kNamespace;
}

constexpr std::array<TestEntry, 37> kTests = {{
    {"defined", [](const Value& v, const Arguments&) -> Result<bool> { return !v.is_undefined(); }},
    {"undefined",
     [](const Value& v, const Arguments&) -> Result<bool> { return v.is_undefined(); }},
    {"none", [](const Value& v, const Arguments&) -> Result<bool> { return v.is_none(); }},
    {"boolean", [](const Value& v, const Arguments&) -> Result<bool> { return v.is_bool(); }},
    {"true",
     [](const Value& v, const Arguments&) -> Result<bool> { return v.is_bool() && v.boolean(); }},
    {"false",
     [](const Value& v, const Arguments&) -> Result<bool> { return v.is_bool() && !v.boolean(); }},
    {"integer", [](const Value& v, const Arguments&) -> Result<bool> { return v.is_int(); }},
    {"float", [](const Value& v, const Arguments&) -> Result<bool> { return v.is_float(); }},
    {"number", [](const Value& v, const Arguments&) -> Result<bool> { return v.is_number(); }},
    {"string", [](const Value& v, const Arguments&) -> Result<bool> { return v.is_string(); }},
    {"mapping", [](const Value& v, const Arguments&) -> Result<bool> { return v.is_dict(); }},
    {"sequence",
     [](const Value& v, const Arguments&) -> Result<bool> {
       return v.is_string() || v.is_list() || v.is_dict();
     }},
    {"iterable",
     [](const Value& v, const Arguments&) -> Result<bool> {
       return v.is_string() || v.is_list() || v.is_dict() || v.is_undefined();
     }},
    {"callable", [](const Value& v, const Arguments&) -> Result<bool> { return IsCallable(v); }},
    {"escaped", [](const Value&, const Arguments&) -> Result<bool> { return false; }},
    {"lower", Cased<false>},
    {"upper", Cased<true>},
    {"even", Parity<0>},
    {"odd", Parity<1>},
    {"divisibleby", DivisibleBy},
    {"in", In},
    {"sameas", SameAs},
    {"equalto", EqualTo<true>},
    {"eq", EqualTo<true>},
    {"==", EqualTo<true>},
    {"ne", EqualTo<false>},
    {"!=", EqualTo<false>},
    {"lt", Ordered<true, false>},
    {"lessthan", Ordered<true, false>},
    {"<", Ordered<true, false>},
    {"le", Ordered<true, true>},
    {"<=", Ordered<true, true>},
    {"gt", Ordered<false, false>},
    {"greaterthan", Ordered<false, false>},
    {">", Ordered<false, false>},
    {"ge", Ordered<false, true>},
    {">=", Ordered<false, true>},
}};

const TestEntry* FindTest(std::string_view name) {
  for (const TestEntry& entry : kTests) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace

bool IsKnownTest(std::string_view name) {
  return FindTest(name) != nullptr;
}

Result<bool> ApplyTest(Runtime&, std::string_view name, const Value& input,
                       const Arguments& arguments) {
  return FindTest(name)->function(input, arguments);
}

}  // namespace muselet::jinja
