#include "node/text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "node/text/jinja/lexer.h"
#include "node/text/jinja/token_stream.h"

namespace muselet::jinja {
namespace {

class StatementParser {
 public:
  explicit StatementParser(TokenStream& stream) : stream_(stream) {}

  // Statements up to a tag whose name is in `ends` (or the template's end if that is empty); the
  // stream then stands at that name.
  Result<Body> ParseBody(std::initializer_list<std::string_view> ends);

 private:
  Result<Statement> ParseTag();
  Result<Statement> ParseIf();
  Result<Statement> ParseFor();
  Result<Statement> ParseSet();
  Result<Statement> ParseMacro();
  Result<Statement> ParseCallBlock();
  Result<Statement> ParseFilterBlock();
  Result<Statement> ParseWith();
  Result<Statement> ParseScope(std::string_view end);
  Result<Target> ParseTarget(bool with_namespace);
  Result<Target> ParseSingleTarget(bool with_namespace);
  Status ParseParameters(MacroDefinition& macro);
  Status EndTag() { return stream_.ExpectKind(TokenKind::kBlockEnd, "the end of the tag"); }
  // The body up to {% end %}, that tag included.
  Result<Body> ParseBlock(std::string_view end);

  TokenStream& stream_;
  int loops_ = 0;
};

Statement NewStatement(StatementKind kind, int line) {
  Statement statement;
  statement.kind = kind;
  statement.line = line;
  return statement;
}

Result<Body> StatementParser::ParseBody(std::initializer_list<std::string_view> ends) {
  const TokenStream::Nesting nesting(stream_);
  RETURN_IF_ERROR(nesting.Check());
  Body body;
  while (true) {
    if (stream_.AtKind(TokenKind::kEnd)) {
      if (ends.size() == 0) return body;
      return stream_.Unexpected("{% " + std::string(*(ends.end() - 1)) + " %}");
    }
    const Token token = stream_.Take();
    if (token.kind == TokenKind::kData) {
      body.push_back(NewStatement(StatementKind::kData, token.line));
      body.back().data = token.text;
    } else if (token.kind == TokenKind::kVariableBegin) {
      body.push_back(NewStatement(StatementKind::kOutput, token.line));
      ASSIGN_OR_RETURN(body.back().expression, ParseTuple(stream_));
      RETURN_IF_ERROR(stream_.ExpectKind(TokenKind::kVariableEnd, "}}"));
    } else {
      for (const std::string_view end : ends) {
        if (stream_.AtName(end)) return body;
      }
      ASSIGN_OR_RETURN(Statement statement, ParseTag());
      body.push_back(std::move(statement));
    }
  }
}

Result<Body> StatementParser::ParseBlock(std::string_view end) {
  RETURN_IF_ERROR(EndTag());
  ASSIGN_OR_RETURN(Body body, ParseBody({end}));
  stream_.Take();
  // endmacro and endcall may repeat the name
  if (stream_.AtKind(TokenKind::kName)) stream_.Take();
  RETURN_IF_ERROR(EndTag());
  return body;
}

Result<Statement> StatementParser::ParseTag() {
  const int line = stream_.line();
  ASSIGN_OR_RETURN(const std::string name, stream_.ExpectName());
  if (name == "if") return ParseIf();
  if (name == "for") return ParseFor();
  if (name == "set") return ParseSet();
  if (name == "macro") return ParseMacro();
  if (name == "call") return ParseCallBlock();
  if (name == "filter") return ParseFilterBlock();
  if (name == "with") return ParseWith();
  if (name == "generation") return ParseScope("endgeneration");
  if (name == "break" || name == "continue") {
    if (loops_ == 0) return stream_.Fault(line, "{% " + name + " %} outside of a loop");
    RETURN_IF_ERROR(EndTag());
    return NewStatement(name == "break" ? StatementKind::kBreak : StatementKind::kContinue, line);
  }
  return stream_.Fault(line, "unknown tag '" + name + "'");
}

Result<Statement> StatementParser::ParseIf() {
  Statement statement = NewStatement(StatementKind::kIf, stream_.line());
  while (true) {
    Branch branch;
    ASSIGN_OR_RETURN(branch.condition, ParseTuple(stream_, true));
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(branch.body, ParseBody({"elif", "else", "endif"}));
    statement.branches.push_back(std::move(branch));
    const std::string end = stream_.Take().text;
    if (end == "elif") continue;
    RETURN_IF_ERROR(EndTag());
    if (end == "endif") return statement;
    Branch other;
    ASSIGN_OR_RETURN(other.body, ParseBody({"endif"}));
    statement.branches.push_back(std::move(other));
    stream_.Take();
    RETURN_IF_ERROR(EndTag());
    return statement;
  }
}

Result<Statement> StatementParser::ParseFor() {
  Statement statement = NewStatement(StatementKind::kFor, stream_.line());
  ASSIGN_OR_RETURN(statement.target, ParseTarget(false));
  if (!stream_.SkipName("in")) return stream_.Unexpected("\"in\"");
  ASSIGN_OR_RETURN(statement.expression, ParseTuple(stream_, false));
  if (stream_.SkipName("if")) {
    ASSIGN_OR_RETURN(statement.condition, ParseExpression(stream_));
  }
  statement.recursive = stream_.SkipName("recursive");
  RETURN_IF_ERROR(EndTag());
  ++loops_;
  auto body = ParseBody({"else", "endfor"});
  --loops_;
  if (!body.ok()) return body.status();
  statement.body = std::move(*body);
  if (stream_.Take().text == "else") {
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(statement.else_body, ParseBody({"endfor"}));
    stream_.Take();
  }
  RETURN_IF_ERROR(EndTag());
  return statement;
}

Result<Target> StatementParser::ParseSingleTarget(bool with_namespace) {
  Target target;
  target.line = stream_.line();
  if (stream_.SkipOperator("(")) {
    ASSIGN_OR_RETURN(target, ParseTarget(false));
    RETURN_IF_ERROR(stream_.ExpectOperator(")"));
    return target;
  }
  ASSIGN_OR_RETURN(const std::string name, stream_.ExpectName());
  for (const std::string_view reserved : {"true", "false", "none", "True", "False", "None"}) {
    if (name == reserved) return stream_.Fault(target.line, "cannot assign to '" + name + "'");
  }
  target.symbol = stream_.Symbol(name);
  if (with_namespace && stream_.SkipOperator(".")) {
    target.kind = Target::Kind::kNamespace;
    ASSIGN_OR_RETURN(target.attribute, stream_.ExpectName());
  }
  return target;
}

Result<Target> StatementParser::ParseTarget(bool with_namespace) {
  const TokenStream::Nesting nesting(stream_);
  RETURN_IF_ERROR(nesting.Check());
  ASSIGN_OR_RETURN(Target first, ParseSingleTarget(with_namespace));
  if (!stream_.AtOperator(",")) return first;
  Target tuple;
  tuple.kind = Target::Kind::kTuple;
  tuple.line = first.line;
  tuple.parts.push_back(std::move(first));
  while (stream_.SkipOperator(",")) {
    if (!stream_.AtKind(TokenKind::kName) && !stream_.AtOperator("(")) break;
    if (stream_.AtName("in")) break;
    ASSIGN_OR_RETURN(Target next, ParseSingleTarget(with_namespace));
    tuple.parts.push_back(std::move(next));
  }
  return tuple;
}

Result<Statement> StatementParser::ParseSet() {
  Statement statement = NewStatement(StatementKind::kSet, stream_.line());
  ASSIGN_OR_RETURN(statement.target, ParseTarget(true));
  if (stream_.SkipOperator("=")) {
    ASSIGN_OR_RETURN(statement.expression, ParseTuple(stream_));
    RETURN_IF_ERROR(EndTag());
    return statement;
  }
  statement.kind = StatementKind::kSetBlock;
  if (statement.target.kind == Target::Kind::kTuple) return stream_.Unexpected("\"=\"");
  if (stream_.AtOperator("|")) {
    ASSIGN_OR_RETURN(statement.expression, ParseFilters(stream_, nullptr, false));
  }
  ASSIGN_OR_RETURN(statement.body, ParseBlock("endset"));
  return statement;
}

Status StatementParser::ParseParameters(MacroDefinition& macro) {
  RETURN_IF_ERROR(stream_.ExpectOperator("("));
  while (!stream_.AtOperator(")")) {
    Parameter parameter;
    ASSIGN_OR_RETURN(parameter.name, stream_.ExpectName());
    parameter.symbol = stream_.Symbol(parameter.name);
    if (stream_.SkipOperator("=")) {
      ASSIGN_OR_RETURN(parameter.fallback, ParseExpression(stream_));
    } else if (!macro.parameters.empty() && macro.parameters.back().fallback != nullptr) {
      return stream_.Fault(stream_.line(),
                           "a parameter without a default after one with a default");
    }
    macro.parameters.push_back(std::move(parameter));
    if (!stream_.SkipOperator(",")) break;
  }
  return stream_.ExpectOperator(")");
}

Result<Statement> StatementParser::ParseMacro() {
  Statement statement = NewStatement(StatementKind::kMacro, stream_.line());
  statement.macro = std::make_unique<MacroDefinition>();
  MacroDefinition& macro = *statement.macro;
  macro.line = statement.line;
  ASSIGN_OR_RETURN(macro.name, stream_.ExpectName());
  macro.symbol = stream_.Symbol(macro.name);
  RETURN_IF_ERROR(ParseParameters(macro));
  const int loops = std::exchange(loops_, 0);
  auto body = ParseBlock("endmacro");
  loops_ = loops;
  if (!body.ok()) return body.status();
  macro.body = std::move(*body);
  return statement;
}

Result<Statement> StatementParser::ParseCallBlock() {
  Statement statement = NewStatement(StatementKind::kCall, stream_.line());
  statement.macro = std::make_unique<MacroDefinition>();
  statement.macro->name = "caller";
  statement.macro->line = statement.line;
  statement.macro->symbol = stream_.Symbol("caller");
  if (stream_.AtOperator("(")) RETURN_IF_ERROR(ParseParameters(*statement.macro));
  ASSIGN_OR_RETURN(statement.expression, ParseExpression(stream_));
  if (statement.expression->kind != ExprKind::kCall) {
    return stream_.Fault(statement.line, "{% call %} needs a call");
  }
  const int loops = std::exchange(loops_, 0);
  auto body = ParseBlock("endcall");
  loops_ = loops;
  if (!body.ok()) return body.status();
  statement.macro->body = std::move(*body);
  return statement;
}

Result<Statement> StatementParser::ParseFilterBlock() {
  Statement statement = NewStatement(StatementKind::kFilter, stream_.line());
  ASSIGN_OR_RETURN(statement.expression, ParseFilters(stream_, nullptr, true));
  ASSIGN_OR_RETURN(statement.body, ParseBlock("endfilter"));
  return statement;
}

Result<Statement> StatementParser::ParseWith() {
  Statement statement = NewStatement(StatementKind::kWith, stream_.line());
  while (!stream_.AtKind(TokenKind::kBlockEnd)) {
    if (!statement.assignments.empty()) RETURN_IF_ERROR(stream_.ExpectOperator(","));
    ASSIGN_OR_RETURN(Target target, ParseSingleTarget(false));
    RETURN_IF_ERROR(stream_.ExpectOperator("="));
    ASSIGN_OR_RETURN(ExprPtr value, ParseExpression(stream_));
    statement.assignments.emplace_back(std::move(target), std::move(value));
  }
  ASSIGN_OR_RETURN(statement.body, ParseBlock("endwith"));
  return statement;
}

Result<Statement> StatementParser::ParseScope(std::string_view end) {
  Statement statement = NewStatement(StatementKind::kScope, stream_.line());
  ASSIGN_OR_RETURN(statement.body, ParseBlock(end));
  return statement;
}

}  // namespace

int Template::FindSymbol(std::string_view name) const {
  const auto found = std::find(symbols.begin(), symbols.end(), name);
  return found == symbols.end() ? -1 : static_cast<int>(found - symbols.begin());
}

Result<std::unique_ptr<Template>> ParseTemplate(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  TokenStream stream(std::move(tokens));
  StatementParser parser(stream);
  auto parsed = std::make_unique<Template>();
  ASSIGN_OR_RETURN(parsed->body, parser.ParseBody({}));
  parsed->symbols = stream.TakeSymbols();
  return parsed;
}

}  // namespace muselet::jinja
