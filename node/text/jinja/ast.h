// The syntax tree of a template. Nodes are owned by the template, know their line for messages, and
// are not changed after parsing.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "node/text/jinja/value.h"

namespace muselet::jinja {

enum class ExprKind : uint8_t {
  kConstant,     // constant
  kName,         // name, symbol
  kList,         // operands
  kTuple,        // operands
  kDict,         // operands: key, value, key, value, ...
  kUnary,        // name: not - +; operands[0]
  kBinary,       // name: + - * / // % **; operands[0..1]
  kConcat,       // operands joined by ~
  kAnd,          // operands[0..1]
  kOr,           // operands[0..1]
  kCompare,      // operands[0] names[0] operands[1] names[1] ...
  kConditional,  // operands: value, condition, other (may be null)
  kAttribute,    // operands[0] . name
  kItem,         // operands[0] [ operands[1] ]
  kSlice,        // operands: start, stop, step; each may be null
  kCall,         // operands[0] ( operands[1..], keywords )
  kFilter,  // operands[0] | name ( operands[1..], keywords ); operands[0] null in filter blocks
  kTest,    // operands[0] is name ( operands[1..], keywords )
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  int line = 0;
  int symbol = -1;      // kName
  uint32_t height = 1;  // of the tree below; bounded by the parser
  std::string name;
  Value constant;
  std::vector<ExprPtr> operands;
  std::vector<std::string> names;  // kCompare: operators
  std::vector<std::pair<std::string, ExprPtr>> keywords;

  // Adds an operand, which may be null.
  void Adopt(ExprPtr operand) {
    if (operand != nullptr) height = std::max(height, operand->height + 1);
    operands.push_back(std::move(operand));
  }
};

// Where an assignment goes.
struct Target {
  enum class Kind : uint8_t { kName, kNamespace, kTuple };
  Kind kind = Kind::kName;
  int line = 0;
  int symbol = -1;            // kName, kNamespace
  std::string attribute;      // kNamespace
  std::vector<Target> parts;  // kTuple
};

struct Parameter {
  int symbol = -1;
  std::string name;
  ExprPtr fallback;  // null = none
};

struct MacroDefinition;

enum class StatementKind : uint8_t {
  kData,      // data
  kOutput,    // expression
  kIf,        // branches: condition (null = else) and body
  kFor,       // target in expression [if condition] body, else_body
  kSet,       // target = expression
  kSetBlock,  // target = body | filter (expression, may be null)
  kMacro,     // macro
  kCall,      // expression is a call; macro is the caller's body
  kFilter,    // body through expression
  kWith,      // targets and values, then body
  kScope,     // body alone ({% generation %})
  kBreak,
  kContinue,
};

struct Statement;
using Body = std::vector<Statement>;

struct Branch {
  ExprPtr condition;
  Body body;
};

struct Statement {
  StatementKind kind = StatementKind::kData;
  int line = 0;
  std::string data;
  ExprPtr expression;
  ExprPtr condition;
  Target target;
  Body body;
  Body else_body;
  bool recursive = false;
  std::vector<Branch> branches;
  std::vector<std::pair<Target, ExprPtr>> assignments;
  std::unique_ptr<MacroDefinition> macro;
};

struct MacroDefinition {
  std::string name;
  int symbol = -1;
  int line = 0;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

struct Template {
  Body body;
  std::vector<std::string> symbols;  // names by symbol number
  // The number of a name that the template uses, -1 if it does not.
  int FindSymbol(std::string_view name) const;
};

}  // namespace muselet::jinja
