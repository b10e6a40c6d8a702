// Expressions.
#include <algorithm>

#include "node/text/jinja/builtins.h"
#include "node/text/jinja/interpreter.h"

namespace muselet::jinja {
namespace {

// Whether a chain of filters waits for its input: {% filter a|b %}, {% set x | a | b %}.
bool IsOpenChain(const Expr& filter) {
  const Expr* at = &filter;
  while (at != nullptr && at->kind == ExprKind::kFilter) at = at->operands[0].get();
  return at == nullptr;
}

}  // namespace

Result<Value> Interpreter::Eval(const Expr& expr) {
  const Depth depth(*this);
  RETURN_IF_ERROR(depth.Check(expr.line));
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return EvalName(expr);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return EvalSequence(expr);
    case ExprKind::kDict:
      return EvalDict(expr);
    case ExprKind::kUnary:
      return EvalUnary(expr);
    case ExprKind::kBinary:
      return EvalBinary(expr);
    case ExprKind::kConcat:
      return EvalConcat(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return EvalLogic(expr);
    case ExprKind::kCompare:
      return EvalCompare(expr);
    case ExprKind::kConditional:
      return EvalConditional(expr);
    case ExprKind::kAttribute: {
      ASSIGN_OR_RETURN(const Value value, Eval(*expr.operands[0]));
      auto attribute = GetAttribute(runtime_, value, expr.name);
      if (!attribute.ok()) return At(expr.line, attribute.status());
      return attribute;
    }
    case ExprKind::kItem:
      return EvalItem(expr);
    case ExprKind::kCall:
      return EvalCall(expr);
    case ExprKind::kFilter: {
      ASSIGN_OR_RETURN(const Value input, Eval(*expr.operands[0]));
      return EvalFilter(expr, input);
    }
    case ExprKind::kTest:
      return EvalTest(expr);
    case ExprKind::kSlice:
      break;  // only within kItem
  }
  return At(expr.line, InvalidArgument("a slice outside of brackets"));
}

Result<Value> Interpreter::EvalName(const Expr& expr) {
  for (const Frame* frame = frame_; frame != nullptr; frame = frame->parent) {
    if (const Value* found = frame->Find(expr.symbol)) return *found;
  }
  if (const BuiltinFunction function = FindFunction(expr.name)) {
    Value value(runtime_.New<Function>(function));
    globals_.Set(expr.symbol, value);
    return value;
  }
  return Value(Undefined{&expr.name});
}

Result<Value> Interpreter::EvalSequence(const Expr& expr) {
  std::vector<Value> items;
  items.reserve(expr.operands.size());
  for (const ExprPtr& operand : expr.operands) {
    ASSIGN_OR_RETURN(Value item, Eval(*operand));
    items.push_back(std::move(item));
  }
  auto made = runtime_.Made(std::move(items), expr.kind == ExprKind::kTuple);
  if (!made.ok()) return At(expr.line, made.status());
  return made;
}

Result<Value> Interpreter::EvalDict(const Expr& expr) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i + 1 < expr.operands.size(); i += 2) {
    ASSIGN_OR_RETURN(Value key, Eval(*expr.operands[i]));
    ASSIGN_OR_RETURN(Value value, Eval(*expr.operands[i + 1]));
    if (key.is_dict() || (key.is_list() && !key.list().is_tuple)) {
      return At(expr.line, InvalidArgument("unhashable type: '" + TypeName(key) + "'"));
    }
    items.emplace_back(std::move(key), std::move(value));
  }
  auto made = runtime_.Made(std::move(items));
  if (!made.ok()) return At(expr.line, made.status());
  return made;
}

Result<Value> Interpreter::EvalUnary(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value value, Eval(*expr.operands[0]));
  if (expr.name == "not") return Value(!value.Truth());
  if (value.is_float()) return Value(expr.name == "-" ? -value.number() : value.number());
  if (!value.is_integral()) {
    return At(expr.line, InvalidArgument("bad operand type for unary " + expr.name + ": '" +
                                         TypeName(value) + "'"));
  }
  const int64_t integer = value.integer();
  if (expr.name == "+") return Value(integer);
  if (integer == INT64_MIN) return At(expr.line, InvalidArgument("number out of range"));
  return Value(-integer);
}

Result<Value> Interpreter::EvalBinary(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value left, Eval(*expr.operands[0]));
  ASSIGN_OR_RETURN(const Value right, Eval(*expr.operands[1]));
  auto result = Arithmetic(runtime_, expr.name, left, right);
  if (!result.ok()) return At(expr.line, result.status());
  return result;
}

Result<Value> Interpreter::EvalConcat(const Expr& expr) {
  Text text;
  for (const ExprPtr& operand : expr.operands) {
    ASSIGN_OR_RETURN(const Value value, Eval(*operand));
    if (value.is_string()) {
      text.Append(value.text());
    } else {
      RETURN_IF_ERROR(At(expr.line, runtime_.Charge(value.weight())));
      text.Append(ToText(value));
    }
  }
  auto made = runtime_.Made(std::move(text));
  if (!made.ok()) return At(expr.line, made.status());
  return made;
}

Result<Value> Interpreter::EvalLogic(const Expr& expr) {
  ASSIGN_OR_RETURN(Value left, Eval(*expr.operands[0]));
  if (left.Truth() == (expr.kind == ExprKind::kOr)) return left;
  return Eval(*expr.operands[1]);
}

Result<Value> Interpreter::EvalCompare(const Expr& expr) {
  ASSIGN_OR_RETURN(Value left, Eval(*expr.operands[0]));
  for (size_t i = 0; i < expr.names.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Eval(*expr.operands[i + 1]));
    const std::string& op = expr.names[i];
    const uint64_t cost =
        op == "in" || op == "not in" ? right.weight() : std::min(left.weight(), right.weight());
    RETURN_IF_ERROR(At(expr.line, runtime_.Charge(cost / 8)));
    bool holds = false;
    if (op == "==" || op == "!=") {
      holds = Equal(left, right) == (op == "==");
    } else if (op == "in" || op == "not in") {
      const auto contains = Contains(right, left);
      if (!contains.ok()) return At(expr.line, contains.status());
      holds = *contains == (op == "in");
    } else {
      int order = 0;
      if (!Compare(left, right, order)) {
        return At(expr.line, InvalidArgument("'" + op + "' not supported between '" +
                                             TypeName(left) + "' and '" + TypeName(right) + "'"));
      }
      holds = op == "<" ? order < 0 : op == ">" ? order > 0 : op == "<=" ? order <= 0 : order >= 0;
    }
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Result<Value> Interpreter::EvalConditional(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value condition, Eval(*expr.operands[1]));
  if (condition.Truth()) return Eval(*expr.operands[0]);
  return EvalOptional(expr.operands[2].get());
}

Result<Value> Interpreter::EvalOptional(const Expr* expr) {
  if (expr == nullptr) return Value();
  return Eval(*expr);
}

Result<Value> Interpreter::EvalItem(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value value, Eval(*expr.operands[0]));
  const Expr& index = *expr.operands[1];
  if (index.kind == ExprKind::kSlice) {
    ASSIGN_OR_RETURN(const Value start, EvalOptional(index.operands[0].get()));
    ASSIGN_OR_RETURN(const Value stop, EvalOptional(index.operands[1].get()));
    ASSIGN_OR_RETURN(const Value step, EvalOptional(index.operands[2].get()));
    auto slice = GetSlice(runtime_, value, start, stop, step);
    if (!slice.ok()) return At(expr.line, slice.status());
    return slice;
  }
  ASSIGN_OR_RETURN(const Value key, Eval(index));
  auto item = GetItem(runtime_, value, key);
  if (!item.ok()) return At(expr.line, item.status());
  return item;
}

Result<Arguments> Interpreter::EvalArguments(const Expr& expr) {
  Arguments arguments;
  for (size_t i = 1; i < expr.operands.size(); ++i) {
    ASSIGN_OR_RETURN(Value value, Eval(*expr.operands[i]));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, operand] : expr.keywords) {
    ASSIGN_OR_RETURN(Value value, Eval(*operand));
    arguments.keywords.emplace_back(name, std::move(value));
  }
  return arguments;
}

Result<Value> Interpreter::EvalCall(const Expr& expr) {
  const Expr& callee = *expr.operands[0];
  if (callee.kind == ExprKind::kAttribute) {
    // The common x.method(...) without an object for the method.
    ASSIGN_OR_RETURN(const Value self, Eval(*callee.operands[0]));
    if (!self.is_object() && HasMethod(self, callee.name)) {
      ASSIGN_OR_RETURN(const Arguments arguments, EvalArguments(expr));
      auto result = CallMethod(runtime_, self, callee.name, arguments);
      if (!result.ok()) return At(expr.line, result.status());
      return result;
    }
    auto attribute = GetAttribute(runtime_, self, callee.name);
    if (!attribute.ok()) return At(expr.line, attribute.status());
    ASSIGN_OR_RETURN(Arguments arguments, EvalArguments(expr));
    if (attribute->is_undefined()) {
      return At(expr.line, InvalidArgument("'" + TypeName(self) + " object' has no attribute '" +
                                           callee.name + "'"));
    }
    return Call(expr, *attribute, std::move(arguments), nullptr);
  }
  ASSIGN_OR_RETURN(const Value target, Eval(callee));
  ASSIGN_OR_RETURN(Arguments arguments, EvalArguments(expr));
  return Call(expr, target, std::move(arguments), nullptr);
}

Result<Value> Interpreter::EvalFilter(const Expr& expr, const Value& input) {
  Value value = input;
  const Expr* inner = expr.operands[0].get();
  if (inner != nullptr && inner->kind == ExprKind::kFilter && IsOpenChain(*inner)) {
    ASSIGN_OR_RETURN(value, EvalFilter(*inner, input));
  }
  ASSIGN_OR_RETURN(const Arguments arguments, EvalArguments(expr));
  auto result = ApplyFilter(runtime_, expr.name, value, arguments);
  if (!result.ok()) return At(expr.line, result.status());
  return result;
}

Result<Value> Interpreter::EvalTest(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value value, Eval(*expr.operands[0]));
  ASSIGN_OR_RETURN(const Arguments arguments, EvalArguments(expr));
  const auto result = ApplyTest(runtime_, expr.name, value, arguments);
  if (!result.ok()) return At(expr.line, result.status());
  return Value(*result);
}

}  // namespace muselet::jinja
