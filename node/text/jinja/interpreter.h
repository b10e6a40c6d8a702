// Walks a template's tree and writes the text. jinja2's scoping: for bodies, macros, call blocks,
// with and filter blocks open a scope, if does not; set writes into the innermost one.
//
// Made for one rendering; one thread. The template must outlive it.
#pragma once

#include <deque>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "node/text/jinja/ast.h"
#include "node/text/jinja/runtime.h"

namespace muselet::jinja {

// Variables of one scope. Frames belong to the interpreter and are used again, except those that a
// macro still refers to.
struct Frame {
  Frame* parent = nullptr;
  bool captured = false;  // a macro was defined in it
  std::vector<std::pair<int, Value>> variables;

  const Value* Find(int symbol) const;
  void Set(int symbol, Value value);
};

struct Macro : Object {
  Macro(const MacroDefinition& definition, Frame* frame)
      : Object(Kind::kMacro), definition(definition), frame(frame) {}
  const MacroDefinition& definition;
  Frame* frame;  // where it was defined
};

// The variable "loop".
struct Loop : Object {
  Loop() : Object(Kind::kLoop) {}
  std::vector<Value> items;
  size_t index = 0;
  int64_t depth = 0;                     // from 0
  const Statement* statement = nullptr;  // recursive loops: what loop(...) runs again
  Frame* frame = nullptr;                // around the loop
  std::vector<Value> last_changed;
};

class Interpreter {
 public:
  Interpreter(const Template& parsed, const Limits& limits, int64_t now_unix_us)
      : template_(parsed), runtime_(limits, now_unix_us) {}

  // A variable of the outermost scope; ignored if the template does not use the name.
  void SetGlobal(std::string_view name, Value value);
  // kInvalidArgument or kResourceExhausted "line N: problem"; for raise_exception the message
  // alone.
  Result<Text> Render();

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  class Scope;
  // Counts nested evaluation while it lives.
  class Depth {
   public:
    explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) { ++interpreter_.depth_; }
    ~Depth() { --interpreter_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    // A fault beyond the limit of depth or of steps; takes one step.
    Status Check(int line) const;

   private:
    Interpreter& interpreter_;
  };

  // Statements. All write to *output_.
  Result<Flow> Run(const Body& body);
  Result<Flow> RunStatement(const Statement& statement);
  Result<Flow> RunIf(const Statement& statement);
  Status RunFor(const Statement& statement, const Value& iterable, int64_t depth);
  Result<std::vector<Value>> LoopItems(const Statement& statement, const Value& iterable);
  Status RunSetBlock(const Statement& statement);
  Status RunCallBlock(const Statement& statement);
  Status RunFilterBlock(const Statement& statement);
  Status RunWith(const Statement& statement);
  Status Write(int line, const Value& value);
  // Runs the body with its output in a text of its own.
  Result<Text> Capture(const Body& body);
  Status Assign(const Target& target, Value value);

  // Expressions.
  Result<Value> Eval(const Expr& expr);
  Result<Value> EvalName(const Expr& expr);
  Result<Value> EvalSequence(const Expr& expr);
  Result<Value> EvalDict(const Expr& expr);
  Result<Value> EvalUnary(const Expr& expr);
  Result<Value> EvalBinary(const Expr& expr);
  Result<Value> EvalConcat(const Expr& expr);
  Result<Value> EvalLogic(const Expr& expr);
  Result<Value> EvalCompare(const Expr& expr);
  Result<Value> EvalConditional(const Expr& expr);
  Result<Value> EvalItem(const Expr& expr);
  Result<Value> EvalCall(const Expr& expr);
  Result<Value> EvalFilter(const Expr& expr, const Value& input);
  Result<Value> EvalTest(const Expr& expr);
  Result<Value> EvalOptional(const Expr* expr);
  // Positional operands from 1 on, and keywords.
  Result<Arguments> EvalArguments(const Expr& expr);
  Result<Value> Call(const Expr& expr, const Value& callee, Arguments arguments,
                     const Value* caller);
  Result<Value> CallMacro(const Macro& macro, const Arguments& arguments, const Value* caller);
  Status BindParameters(const Macro& macro, const Arguments& arguments);
  Result<Value> CallLoop(Loop& loop, const Arguments& arguments);

  // Puts "line N: " before a fault, unless the template raised it.
  Status At(int line, const Status& status) const;
  Frame* PushFrame(Frame* parent);
  void PopFrame(Frame* frame);

  const Template& template_;
  Runtime runtime_;
  std::deque<Frame> frames_;
  std::vector<Frame*> free_frames_;
  Frame globals_;
  Frame* frame_ = &globals_;
  Text* output_ = nullptr;
  uint32_t depth_ = 0;
};

}  // namespace muselet::jinja
