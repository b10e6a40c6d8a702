// Python's binary operators.
#include <cmath>

#include "node/text/jinja/builtins.h"

namespace muselet::jinja {
namespace {

Status BadOperands(std::string_view op, const Value& a, const Value& b) {
  if (a.is_undefined() || b.is_undefined()) {
    const std::string* name = (a.is_undefined() ? a : b).undefined().name;
    return InvalidArgument(name != nullptr ? "'" + *name + "' is undefined" : "value is undefined");
  }
  if (op == "+" && (a.is_string() || a.is_list())) {
    return InvalidArgument("can only concatenate " + TypeName(a) + " (not \"" + TypeName(b) +
                           "\") to " + TypeName(a));
  }
  return InvalidArgument("unsupported operand type(s) for " + std::string(op) + ": '" +
                         TypeName(a) + "' and '" + TypeName(b) + "'");
}

Result<Value> Add(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    Text text = a.text();
    text.Append(b.text());
    return runtime.Made(std::move(text));
  }
  if (a.is_list() && b.is_list() && a.list().is_tuple == b.list().is_tuple) {
    std::vector<Value> items = a.list().items;
    items.insert(items.end(), b.list().items.begin(), b.list().items.end());
    return runtime.Made(std::move(items), a.list().is_tuple);
  }
  return BadOperands("+", a, b);
}

// "ab" * 3, [0] * 3.
Result<Value> Repeat(Runtime& runtime, const Value& sequence, int64_t count) {
  const auto times = static_cast<uint64_t>(std::max<int64_t>(count, 0));
  const uint64_t size =
      sequence.is_string() ? sequence.text().size() : sequence.list().items.size();
  if (size > 0 && times > runtime.limits().text_bytes_max / size) {
    return ResourceExhausted("the template repeats a value too often");
  }
  RETURN_IF_ERROR(runtime.Charge(times * size / (sequence.is_string() ? 32 : 1)));
  if (sequence.is_string()) {
    Text text;
    for (uint64_t i = 0; size > 0 && i < times; ++i) text.Append(sequence.text());
    return runtime.Made(std::move(text));
  }
  std::vector<Value> items;
  for (uint64_t i = 0; size > 0 && i < times; ++i) {
    items.insert(items.end(), sequence.list().items.begin(), sequence.list().items.end());
  }
  return runtime.Made(std::move(items), sequence.list().is_tuple);
}

Result<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0)
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      return InvalidArgument("number out of range");
    }
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) {
      return InvalidArgument("number out of range");
    }
  }
  return Value(result);
}

Result<Value> IntegerOperation(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    return IntegerPower(a, b);
  } else {
    if (b == 0) return InvalidArgument("division by zero");
    if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {  // the one quotient that can overflow
      overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
    } else {
      const int64_t rest = a % b;
      const bool crosses = rest != 0 && (rest < 0) != (b < 0);  // Python rounds down
      result = op == "//" ? a / b - (crosses ? 1 : 0) : rest + (crosses ? b : 0);
    }
  }
  if (overflow) return InvalidArgument("number out of range");
  return Value(result);
}

Result<Value> FloatOperation(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0.0) return InvalidArgument("float division by zero");
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  const double rest = std::fmod(a, b);
  return Value(rest != 0.0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

}  // namespace

Result<Value> Arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return IntegerOperation(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return FloatOperation(op, a.number(), b.number());
  if (op == "+") return Add(runtime, a, b);
  if (op == "%" && a.is_string()) return FormatPercent(runtime, a.text(), b);
  if (op == "*") {
    if ((a.is_string() || a.is_list()) && b.is_integral()) return Repeat(runtime, a, b.integer());
    if ((b.is_string() || b.is_list()) && a.is_integral()) return Repeat(runtime, b, a.integer());
  }
  return BadOperands(op, a, b);
}

}  // namespace muselet::jinja
