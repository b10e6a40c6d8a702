#include <algorithm>
#include <array>

#include "node/text/jinja/builtins.h"
#include "node/text/jinja/token_stream.h"

namespace muselet::jinja {
namespace {

constexpr size_t kNestingMax = 200;
constexpr uint32_t kHeightMax = 800;  // chains like a + a + ... make trees as high as they are long

ExprPtr NewExpr(ExprKind kind, int line, std::string name = "") {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  expr->name = std::move(name);
  return expr;
}

ExprPtr NewConstant(int line, Value value) {
  auto expr = NewExpr(ExprKind::kConstant, line);
  expr->constant = std::move(value);
  return expr;
}

ExprPtr NewBinary(ExprKind kind, int line, std::string name, ExprPtr left, ExprPtr right) {
  auto expr = NewExpr(kind, line, std::move(name));
  expr->Adopt(std::move(left));
  expr->Adopt(std::move(right));
  return expr;
}

Status CheckHeight(const TokenStream& stream, const Expr& expr) {
  if (expr.height <= kHeightMax) return OkStatus();
  return stream.Fault(expr.line, "expression is too long");
}

Result<ExprPtr> ParseUnary(TokenStream& stream, bool with_filter);

// Whether the current token is one of the operators; its text is then taken into `op`.
template <size_t n>
bool TakeOneOf(TokenStream& stream, const std::array<std::string_view, n>& operators,
               std::string& op) {
  for (const std::string_view candidate : operators) {
    if (!stream.SkipOperator(candidate)) continue;
    op = candidate;
    return true;
  }
  return false;
}

Result<ExprPtr> ParsePower(TokenStream& stream) {
  ASSIGN_OR_RETURN(ExprPtr left, ParseUnary(stream, true));
  while (stream.AtOperator("**")) {
    const int line = stream.Take().line;
    ASSIGN_OR_RETURN(ExprPtr right, ParseUnary(stream, true));
    left = NewBinary(ExprKind::kBinary, line, "**", std::move(left), std::move(right));
    RETURN_IF_ERROR(CheckHeight(stream, *left));
  }
  return left;
}

Result<ExprPtr> ParseProduct(TokenStream& stream) {
  constexpr std::array<std::string_view, 4> kOperators = {"*", "/", "//", "%"};
  ASSIGN_OR_RETURN(ExprPtr left, ParsePower(stream));
  for (std::string op; TakeOneOf(stream, kOperators, op);) {
    const int line = stream.line();
    ASSIGN_OR_RETURN(ExprPtr right, ParsePower(stream));
    left = NewBinary(ExprKind::kBinary, line, op, std::move(left), std::move(right));
    RETURN_IF_ERROR(CheckHeight(stream, *left));
  }
  return left;
}

Result<ExprPtr> ParseConcat(TokenStream& stream) {
  const int line = stream.line();
  ASSIGN_OR_RETURN(ExprPtr first, ParseProduct(stream));
  if (!stream.AtOperator("~")) return first;
  ExprPtr concat = NewExpr(ExprKind::kConcat, line);
  concat->Adopt(std::move(first));
  while (stream.SkipOperator("~")) {
    ASSIGN_OR_RETURN(ExprPtr next, ParseProduct(stream));
    concat->Adopt(std::move(next));
  }
  return concat;
}

Result<ExprPtr> ParseSum(TokenStream& stream) {
  constexpr std::array<std::string_view, 2> kOperators = {"+", "-"};
  ASSIGN_OR_RETURN(ExprPtr left, ParseConcat(stream));
  for (std::string op; TakeOneOf(stream, kOperators, op);) {
    const int line = stream.line();
    ASSIGN_OR_RETURN(ExprPtr right, ParseConcat(stream));
    left = NewBinary(ExprKind::kBinary, line, op, std::move(left), std::move(right));
    RETURN_IF_ERROR(CheckHeight(stream, *left));
  }
  return left;
}

Result<ExprPtr> ParseComparison(TokenStream& stream) {
  constexpr std::array<std::string_view, 6> kOperators = {"==", "!=", ">=", "<=", ">", "<"};
  ASSIGN_OR_RETURN(ExprPtr first, ParseSum(stream));
  ExprPtr compare;
  while (true) {
    const int line = stream.line();
    std::string op;
    if (stream.SkipName("in")) {
      op = "in";
    } else if (stream.AtName("not") && stream.AtName("in", 1)) {
      stream.Take();
      stream.Take();
      op = "not in";
    } else if (!TakeOneOf(stream, kOperators, op)) {
      break;
    }
    if (compare == nullptr) {
      compare = NewExpr(ExprKind::kCompare, line);
      compare->Adopt(std::move(first));
    }
    ASSIGN_OR_RETURN(ExprPtr right, ParseSum(stream));
    compare->names.push_back(op);
    compare->Adopt(std::move(right));
  }
  return compare != nullptr ? std::move(compare) : std::move(first);
}

Result<ExprPtr> ParseNot(TokenStream& stream) {
  const TokenStream::Nesting nesting(stream);
  RETURN_IF_ERROR(nesting.Check());
  if (!stream.AtName("not")) return ParseComparison(stream);
  ExprPtr expr = NewExpr(ExprKind::kUnary, stream.Take().line, "not");
  ASSIGN_OR_RETURN(ExprPtr operand, ParseNot(stream));
  expr->Adopt(std::move(operand));
  return expr;
}

Result<ExprPtr> ParseAnd(TokenStream& stream) {
  ASSIGN_OR_RETURN(ExprPtr left, ParseNot(stream));
  while (stream.AtName("and")) {
    const int line = stream.Take().line;
    ASSIGN_OR_RETURN(ExprPtr right, ParseNot(stream));
    left = NewBinary(ExprKind::kAnd, line, "", std::move(left), std::move(right));
    RETURN_IF_ERROR(CheckHeight(stream, *left));
  }
  return left;
}

Result<ExprPtr> ParseOr(TokenStream& stream) {
  ASSIGN_OR_RETURN(ExprPtr left, ParseAnd(stream));
  while (stream.AtName("or")) {
    const int line = stream.Take().line;
    ASSIGN_OR_RETURN(ExprPtr right, ParseAnd(stream));
    left = NewBinary(ExprKind::kOr, line, "", std::move(left), std::move(right));
    RETURN_IF_ERROR(CheckHeight(stream, *left));
  }
  return left;
}

// The arguments of a call, from "(" to ")".
Status ParseArguments(TokenStream& stream, Expr& call) {
  RETURN_IF_ERROR(stream.ExpectOperator("("));
  while (!stream.AtOperator(")")) {
    if (stream.AtOperator("*") || stream.AtOperator("**")) {
      return stream.Fault(stream.line(), "* and ** in calls are not supported");
    }
    if (stream.AtKind(TokenKind::kName) && stream.AtOperator("=", 1)) {
      std::string name = stream.Take().text;
      stream.Take();
      ASSIGN_OR_RETURN(ExprPtr value, ParseExpression(stream));
      call.height = std::max(call.height, value->height + 1);
      call.keywords.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call.keywords.empty()) {
        return stream.Fault(stream.line(), "an argument without a name after one with a name");
      }
      ASSIGN_OR_RETURN(ExprPtr value, ParseExpression(stream));
      call.Adopt(std::move(value));
    }
    if (!stream.SkipOperator(",")) break;
  }
  return stream.ExpectOperator(")");
}

// "a.b.c" of filter and test names.
Result<std::string> ParseDottedName(TokenStream& stream) {
  ASSIGN_OR_RETURN(std::string name, stream.ExpectName());
  while (stream.SkipOperator(".")) {
    ASSIGN_OR_RETURN(const std::string part, stream.ExpectName());
    name += "." + part;
  }
  return name;
}

Result<ExprPtr> ParseTest(TokenStream& stream, ExprPtr expr) {
  const int line = stream.Take().line;  // "is"
  const bool negated = stream.SkipName("not");
  ASSIGN_OR_RETURN(std::string name, ParseDottedName(stream));
  if (!IsKnownTest(name)) return stream.Fault(line, "no test named '" + name + "'");
  ExprPtr test = NewExpr(ExprKind::kTest, line, std::move(name));
  test->Adopt(std::move(expr));
  const TokenKind kind = stream.Peek().kind;
  const bool value_follows =
      kind == TokenKind::kString || kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
      stream.AtOperator("[") || stream.AtOperator("{") ||
      (kind == TokenKind::kName && !stream.AtName("else") && !stream.AtName("or") &&
       !stream.AtName("and") && !stream.AtName("if") && !stream.AtName("in") &&
       !stream.AtName("not"));
  if (stream.AtOperator("(")) {
    RETURN_IF_ERROR(ParseArguments(stream, *test));
  } else if (value_follows) {
    if (stream.AtName("is")) return stream.Fault(line, "tests cannot be chained with is");
    ASSIGN_OR_RETURN(ExprPtr primary, ParsePrimary(stream));
    ASSIGN_OR_RETURN(ExprPtr argument, ParsePostfix(stream, std::move(primary)));
    test->Adopt(std::move(argument));
  }
  if (!negated) return test;
  ExprPtr inverted = NewExpr(ExprKind::kUnary, line, "not");
  inverted->Adopt(std::move(test));
  return inverted;
}

Result<ExprPtr> ParseCall(TokenStream& stream, ExprPtr callee) {
  ExprPtr call = NewExpr(ExprKind::kCall, stream.line());
  call->Adopt(std::move(callee));
  RETURN_IF_ERROR(ParseArguments(stream, *call));
  return call;
}

Result<ExprPtr> ParseFilterExpression(TokenStream& stream, ExprPtr expr) {
  while (true) {
    RETURN_IF_ERROR(CheckHeight(stream, *expr));
    if (stream.AtOperator("|")) {
      ASSIGN_OR_RETURN(expr, ParseFilters(stream, std::move(expr), false));
    } else if (stream.AtName("is")) {
      ASSIGN_OR_RETURN(expr, ParseTest(stream, std::move(expr)));
    } else if (stream.AtOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParseCall(stream, std::move(expr)));
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> ParseUnary(TokenStream& stream, bool with_filter) {
  const TokenStream::Nesting nesting(stream);
  RETURN_IF_ERROR(nesting.Check());
  ExprPtr expr;
  if (stream.AtOperator("-") || stream.AtOperator("+")) {
    const Token sign = stream.Take();
    expr = NewExpr(ExprKind::kUnary, sign.line, sign.text);
    ASSIGN_OR_RETURN(ExprPtr operand, ParseUnary(stream, false));
    expr->Adopt(std::move(operand));
  } else {
    ASSIGN_OR_RETURN(expr, ParsePrimary(stream));
  }
  ASSIGN_OR_RETURN(expr, ParsePostfix(stream, std::move(expr)));
  if (with_filter) return ParseFilterExpression(stream, std::move(expr));
  return expr;
}

Result<ExprPtr> ParseListLiteral(TokenStream& stream) {
  ExprPtr list = NewExpr(ExprKind::kList, stream.Take().line);
  while (!stream.AtOperator("]")) {
    ASSIGN_OR_RETURN(ExprPtr item, ParseExpression(stream));
    list->Adopt(std::move(item));
    if (!stream.SkipOperator(",")) break;
  }
  RETURN_IF_ERROR(stream.ExpectOperator("]"));
  return list;
}

Result<ExprPtr> ParseDictLiteral(TokenStream& stream) {
  ExprPtr dict = NewExpr(ExprKind::kDict, stream.Take().line);
  while (!stream.AtOperator("}")) {
    ASSIGN_OR_RETURN(ExprPtr key, ParseExpression(stream));
    RETURN_IF_ERROR(stream.ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExprPtr value, ParseExpression(stream));
    dict->Adopt(std::move(key));
    dict->Adopt(std::move(value));
    if (!stream.SkipOperator(",")) break;
  }
  RETURN_IF_ERROR(stream.ExpectOperator("}"));
  return dict;
}

// One of the three parts of a slice; null if it is left out.
Result<ExprPtr> ParseSlicePart(TokenStream& stream) {
  if (stream.AtOperator(":") || stream.AtOperator("]")) return ExprPtr();
  return ParseExpression(stream);
}

Result<ExprPtr> ParseSubscript(TokenStream& stream, ExprPtr expr) {
  const int line = stream.Take().line;  // "["
  ASSIGN_OR_RETURN(ExprPtr index, ParseSlicePart(stream));
  if (stream.AtOperator(":")) {
    ExprPtr slice = NewExpr(ExprKind::kSlice, line);
    slice->Adopt(std::move(index));
    for (int part = 0; part < 2; ++part) {
      ExprPtr next;
      if (stream.SkipOperator(":")) {
        ASSIGN_OR_RETURN(next, ParseSlicePart(stream));
      }
      slice->Adopt(std::move(next));
    }
    index = std::move(slice);
  } else if (index == nullptr) {
    return stream.Fault(line, "expected an index");
  }
  RETURN_IF_ERROR(stream.ExpectOperator("]"));
  return NewBinary(ExprKind::kItem, line, "", std::move(expr), std::move(index));
}

}  // namespace

Status TokenStream::Nesting::Check() const {
  if (stream_.depth_ <= kNestingMax) return OkStatus();
  return stream_.Fault(stream_.line(), "nested too deeply");
}

Status TokenStream::Unexpected(std::string_view what) const {
  const Token& token = Peek();
  std::string got = "\"" + token.text.substr(0, 64) + "\"";
  if (token.kind == TokenKind::kBlockEnd) got = "the end of the tag";
  if (token.kind == TokenKind::kVariableEnd) got = "the end of the expression";
  if (token.kind == TokenKind::kEnd) got = "the end of the template";
  return Fault(token.line, "expected " + std::string(what) + ", got " + got);
}

Result<ExprPtr> ParseExpression(TokenStream& stream, bool with_conditional) {
  const TokenStream::Nesting nesting(stream);
  RETURN_IF_ERROR(nesting.Check());
  ASSIGN_OR_RETURN(ExprPtr value, ParseOr(stream));
  while (with_conditional && stream.AtName("if")) {
    ExprPtr conditional = NewExpr(ExprKind::kConditional, stream.Take().line);
    ASSIGN_OR_RETURN(ExprPtr condition, ParseOr(stream));
    ExprPtr other;
    if (stream.SkipName("else")) {
      ASSIGN_OR_RETURN(other, ParseExpression(stream));
    }
    conditional->Adopt(std::move(value));
    conditional->Adopt(std::move(condition));
    conditional->Adopt(std::move(other));
    value = std::move(conditional);
    RETURN_IF_ERROR(CheckHeight(stream, *value));
  }
  return value;
}

Result<ExprPtr> ParseTuple(TokenStream& stream, bool with_conditional) {
  const int line = stream.line();
  ASSIGN_OR_RETURN(ExprPtr first, ParseExpression(stream, with_conditional));
  if (!stream.AtOperator(",")) return first;
  ExprPtr tuple = NewExpr(ExprKind::kTuple, line);
  tuple->Adopt(std::move(first));
  while (stream.SkipOperator(",")) {
    const bool ends = stream.AtKind(TokenKind::kBlockEnd) ||
                      stream.AtKind(TokenKind::kVariableEnd) || stream.AtOperator(")");
    if (ends) break;
    ASSIGN_OR_RETURN(ExprPtr next, ParseExpression(stream, with_conditional));
    tuple->Adopt(std::move(next));
  }
  return tuple;
}

Result<ExprPtr> ParsePrimary(TokenStream& stream) {
  const int line = stream.line();
  if (stream.AtOperator("[")) return ParseListLiteral(stream);
  if (stream.AtOperator("{")) return ParseDictLiteral(stream);
  if (stream.SkipOperator("(")) {
    if (stream.SkipOperator(")")) return NewExpr(ExprKind::kTuple, line);
    ASSIGN_OR_RETURN(ExprPtr inner, ParseTuple(stream));
    RETURN_IF_ERROR(stream.ExpectOperator(")"));
    return inner;
  }
  const TokenKind kind = stream.Peek().kind;
  if (kind == TokenKind::kString) {
    std::string text;
    while (stream.AtKind(TokenKind::kString)) text += stream.Take().text;
    return NewConstant(line, Value(Text(std::move(text))));
  }
  if (kind == TokenKind::kInteger) return NewConstant(line, Value(stream.Take().integer));
  if (kind == TokenKind::kFloat) return NewConstant(line, Value(stream.Take().number));
  if (kind != TokenKind::kName) return stream.Unexpected("a value");
  const std::string name = stream.Take().text;
  if (name == "true" || name == "True") return NewConstant(line, Value(true));
  if (name == "false" || name == "False") return NewConstant(line, Value(false));
  if (name == "none" || name == "None") return NewConstant(line, Value(None{}));
  ExprPtr expr = NewExpr(ExprKind::kName, line, name);
  expr->symbol = stream.Symbol(name);
  return expr;
}

Result<ExprPtr> ParsePostfix(TokenStream& stream, ExprPtr expr) {
  while (true) {
    RETURN_IF_ERROR(CheckHeight(stream, *expr));
    if (stream.AtOperator(".")) {
      const int line = stream.Take().line;
      if (stream.AtKind(TokenKind::kInteger)) {
        const int64_t index = stream.Take().integer;
        expr =
            NewBinary(ExprKind::kItem, line, "", std::move(expr), NewConstant(line, Value(index)));
        continue;
      }
      ASSIGN_OR_RETURN(std::string name, stream.ExpectName());
      ExprPtr attribute = NewExpr(ExprKind::kAttribute, line, std::move(name));
      attribute->Adopt(std::move(expr));
      expr = std::move(attribute);
    } else if (stream.AtOperator("[")) {
      ASSIGN_OR_RETURN(expr, ParseSubscript(stream, std::move(expr)));
    } else if (stream.AtOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParseCall(stream, std::move(expr)));
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> ParseFilters(TokenStream& stream, ExprPtr expr, bool begin_inline) {
  while (begin_inline || stream.AtOperator("|")) {
    if (!begin_inline) stream.Take();
    begin_inline = false;
    const int line = stream.line();
    ASSIGN_OR_RETURN(std::string name, ParseDottedName(stream));
    if (!IsKnownFilter(name)) return stream.Fault(line, "no filter named '" + name + "'");
    ExprPtr filter = NewExpr(ExprKind::kFilter, line, std::move(name));
    filter->Adopt(std::move(expr));
    if (stream.AtOperator("(")) RETURN_IF_ERROR(ParseArguments(stream, *filter));
    expr = std::move(filter);
    RETURN_IF_ERROR(CheckHeight(stream, *expr));
  }
  return expr;
}

}  // namespace muselet::jinja
