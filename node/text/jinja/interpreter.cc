#include "node/text/jinja/interpreter.h"

#include <algorithm>

#include "node/text/jinja/builtins.h"

namespace muselet::jinja {

const Value* Frame::Find(int symbol) const {
  for (const auto& [number, value] : variables) {
    if (number == symbol) return &value;
  }
  return nullptr;
}

void Frame::Set(int symbol, Value value) {
  for (auto& [number, old] : variables) {
    if (number != symbol) continue;
    old = std::move(value);
    return;
  }
  variables.emplace_back(symbol, std::move(value));
}

// Makes a new frame the current one while it lives.
class Interpreter::Scope {
 public:
  Scope(Interpreter& interpreter, Frame* parent)
      : interpreter_(interpreter), before_(interpreter.frame_) {
    interpreter_.frame_ = interpreter_.PushFrame(parent);
  }
  ~Scope() {
    interpreter_.PopFrame(interpreter_.frame_);
    interpreter_.frame_ = before_;
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Interpreter& interpreter_;
  Frame* before_;
};

Status Interpreter::Depth::Check(int line) const {
  Runtime& runtime = interpreter_.runtime_;
  if (interpreter_.depth_ > runtime.limits().depth_max) {
    return interpreter_.At(line, ResourceExhausted("the template is nested too deeply"));
  }
  return interpreter_.At(line, runtime.Charge(1));
}

Status Interpreter::At(int line, const Status& status) const {
  if (status.ok() || runtime_.raised()) return status;
  return status.WithContext("line " + std::to_string(line));
}

Frame* Interpreter::PushFrame(Frame* parent) {
  Frame* frame;
  if (!free_frames_.empty()) {
    frame = free_frames_.back();
    free_frames_.pop_back();
  } else {
    frame = &frames_.emplace_back();
  }
  frame->parent = parent;
  return frame;
}

void Interpreter::PopFrame(Frame* frame) {
  if (frame->captured) return;
  frame->variables.clear();
  free_frames_.push_back(frame);
}

void Interpreter::SetGlobal(std::string_view name, Value value) {
  const int symbol = template_.FindSymbol(name);
  if (symbol >= 0) globals_.Set(symbol, std::move(value));
}

Result<Text> Interpreter::Render() {
  Text output;
  output_ = &output;
  ASSIGN_OR_RETURN([[maybe_unused]] const Flow flow, Run(template_.body));
  return output;
}

Result<Interpreter::Flow> Interpreter::Run(const Body& body) {
  for (const Statement& statement : body) {
    ASSIGN_OR_RETURN(const Flow flow, RunStatement(statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::RunStatement(const Statement& statement) {
  const Depth depth(*this);
  RETURN_IF_ERROR(depth.Check(statement.line));
  switch (statement.kind) {
    case StatementKind::kData:
      output_->Append(statement.data, false);
      RETURN_IF_ERROR(At(statement.line, runtime_.Charge(statement.data.size() / 32)));
      break;
    case StatementKind::kOutput: {
      ASSIGN_OR_RETURN(const Value value, Eval(*statement.expression));
      RETURN_IF_ERROR(Write(statement.line, value));
      break;
    }
    case StatementKind::kIf:
      return RunIf(statement);
    case StatementKind::kFor: {
      ASSIGN_OR_RETURN(const Value iterable, Eval(*statement.expression));
      RETURN_IF_ERROR(RunFor(statement, iterable, 0));
      break;
    }
    case StatementKind::kSet: {
      ASSIGN_OR_RETURN(Value value, Eval(*statement.expression));
      RETURN_IF_ERROR(Assign(statement.target, std::move(value)));
      break;
    }
    case StatementKind::kSetBlock:
      RETURN_IF_ERROR(RunSetBlock(statement));
      break;
    case StatementKind::kMacro:
      frame_->captured = true;
      frame_->Set(statement.macro->symbol, Value(runtime_.New<Macro>(*statement.macro, frame_)));
      break;
    case StatementKind::kCall:
      RETURN_IF_ERROR(RunCallBlock(statement));
      break;
    case StatementKind::kFilter:
      RETURN_IF_ERROR(RunFilterBlock(statement));
      break;
    case StatementKind::kWith:
      RETURN_IF_ERROR(RunWith(statement));
      break;
    case StatementKind::kScope:
      return Run(statement.body);
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Status Interpreter::Write(int line, const Value& value) {
  RETURN_IF_ERROR(At(line, runtime_.Charge(value.weight() / 2)));
  const Text text = ToText(value);
  output_->Append(text);
  if (output_->size() > runtime_.limits().text_bytes_max) {
    return At(line, ResourceExhausted("the output is longer than " +
                                      std::to_string(runtime_.limits().text_bytes_max) + " bytes"));
  }
  return OkStatus();
}

Result<Interpreter::Flow> Interpreter::RunIf(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition != nullptr) {
      ASSIGN_OR_RETURN(const Value condition, Eval(*branch.condition));
      if (!condition.Truth()) continue;
    }
    return Run(branch.body);
  }
  return Flow::kNext;
}

// The items to loop over: those of the iterable that meet the loop's condition.
Result<std::vector<Value>> Interpreter::LoopItems(const Statement& statement,
                                                  const Value& iterable) {
  auto all = Iterate(runtime_, iterable);
  if (!all.ok()) return At(statement.line, all.status());
  if (statement.condition == nullptr) return all;
  std::vector<Value> kept;
  const Scope scope(*this, frame_);
  for (Value& item : *all) {
    RETURN_IF_ERROR(Assign(statement.target, item));
    ASSIGN_OR_RETURN(const Value condition, Eval(*statement.condition));
    if (condition.Truth()) kept.push_back(std::move(item));
  }
  return kept;
}

Status Interpreter::RunFor(const Statement& statement, const Value& iterable, int64_t depth) {
  ASSIGN_OR_RETURN(std::vector<Value> items, LoopItems(statement, iterable));
  if (items.empty()) {
    const Scope scope(*this, frame_);
    ASSIGN_OR_RETURN([[maybe_unused]] const Flow flow, Run(statement.else_body));
    return OkStatus();
  }
  Loop* loop = runtime_.New<Loop>();
  loop->items = std::move(items);
  loop->depth = depth;
  loop->statement = statement.recursive ? &statement : nullptr;
  loop->frame = frame_;
  const int loop_symbol = template_.FindSymbol("loop");
  for (loop->index = 0; loop->index < loop->items.size(); ++loop->index) {
    const Scope scope(*this, loop->frame);
    RETURN_IF_ERROR(At(statement.line, runtime_.Charge(1)));
    if (loop_symbol >= 0) frame_->Set(loop_symbol, Value(loop));
    RETURN_IF_ERROR(Assign(statement.target, loop->items[loop->index]));
    ASSIGN_OR_RETURN(const Flow flow, Run(statement.body));
    if (flow == Flow::kBreak) break;
  }
  loop->items.clear();  // the object itself stays until the end of the rendering
  return OkStatus();
}

Result<Text> Interpreter::Capture(const Body& body) {
  Text captured;
  Text* before = std::exchange(output_, &captured);
  const auto flow = Run(body);
  output_ = before;
  if (!flow.ok()) return flow.status();
  return captured;
}

Status Interpreter::RunSetBlock(const Statement& statement) {
  Value value;
  {
    const Scope scope(*this, frame_);
    ASSIGN_OR_RETURN(Text text, Capture(statement.body));
    value = Value(std::move(text));
    if (statement.expression != nullptr) {
      ASSIGN_OR_RETURN(value, EvalFilter(*statement.expression, value));
    }
  }
  return Assign(statement.target, std::move(value));
}

Status Interpreter::RunFilterBlock(const Statement& statement) {
  const Scope scope(*this, frame_);
  ASSIGN_OR_RETURN(Text text, Capture(statement.body));
  ASSIGN_OR_RETURN(const Value value, EvalFilter(*statement.expression, Value(std::move(text))));
  return Write(statement.line, value);
}

Status Interpreter::RunCallBlock(const Statement& statement) {
  frame_->captured = true;
  const Value caller(runtime_.New<Macro>(*statement.macro, frame_));
  const Expr& expr = *statement.expression;
  ASSIGN_OR_RETURN(const Value callee, Eval(*expr.operands[0]));
  ASSIGN_OR_RETURN(Arguments arguments, EvalArguments(expr));
  ASSIGN_OR_RETURN(const Value value, Call(expr, callee, std::move(arguments), &caller));
  return Write(statement.line, value);
}

Status Interpreter::RunWith(const Statement& statement) {
  std::vector<Value> values;  // all are evaluated outside of the new scope
  for (const auto& assignment : statement.assignments) {
    ASSIGN_OR_RETURN(Value value, Eval(*assignment.second));
    values.push_back(std::move(value));
  }
  const Scope scope(*this, frame_);
  for (size_t i = 0; i < values.size(); ++i) {
    RETURN_IF_ERROR(Assign(statement.assignments[i].first, std::move(values[i])));
  }
  ASSIGN_OR_RETURN([[maybe_unused]] const Flow flow, Run(statement.body));
  return OkStatus();
}

Status Interpreter::Assign(const Target& target, Value value) {
  if (target.kind == Target::Kind::kName) {
    frame_->Set(target.symbol, std::move(value));
    return OkStatus();
  }
  if (target.kind == Target::Kind::kNamespace) {
    Frame* frame = frame_;
    const Value* found = nullptr;
    for (; frame != nullptr && found == nullptr; frame = frame->parent) {
      found = frame->Find(target.symbol);
    }
    if (found == nullptr || !found->is_object() ||
        found->object()->kind != Object::Kind::kNamespace) {
      return At(target.line, InvalidArgument("cannot assign attribute on non-namespace object"));
    }
    static_cast<Namespace*>(found->object())->Set(target.attribute, std::move(value));
    return OkStatus();
  }
  auto items = Iterate(runtime_, value);
  if (!items.ok()) return At(target.line, items.status());
  if (items->size() != target.parts.size()) {
    return At(target.line,
              InvalidArgument("expected " + std::to_string(target.parts.size()) +
                              " values to unpack, got " + std::to_string(items->size())));
  }
  for (size_t i = 0; i < items->size(); ++i) {
    RETURN_IF_ERROR(Assign(target.parts[i], std::move((*items)[i])));
  }
  return OkStatus();
}

Result<Value> Interpreter::Call(const Expr& expr, const Value& callee, Arguments arguments,
                                const Value* caller) {
  if (callee.is_undefined()) {
    const std::string* name = callee.undefined().name;
    return At(expr.line, InvalidArgument("'" + (name == nullptr ? std::string("value") : *name) +
                                         "' is undefined"));
  }
  if (!callee.is_object()) {
    return At(expr.line, InvalidArgument("'" + TypeName(callee) + "' object is not callable"));
  }
  Object& object = *callee.object();
  if (object.kind == Object::Kind::kMacro) {
    auto result = CallMacro(static_cast<const Macro&>(object), arguments, caller);
    return result;
  }
  if (object.kind == Object::Kind::kLoop) {
    auto result = CallLoop(static_cast<Loop&>(object), arguments);
    return result;
  }
  auto result = CallObject(runtime_, object, arguments);
  if (!result.ok()) return At(expr.line, result.status());
  return result;
}

Status Interpreter::BindParameters(const Macro& macro, const Arguments& arguments) {
  const MacroDefinition& definition = macro.definition;
  const auto fault = [&](const std::string& problem) {
    return At(definition.line, InvalidArgument("macro '" + definition.name + "' " + problem));
  };
  std::vector<std::pair<Value, Value>> extra_keywords;
  for (const auto& [name, value] : arguments.keywords) {
    const auto parameter =
        std::find_if(definition.parameters.begin(), definition.parameters.end(),
                     [&, key = name](const Parameter& candidate) { return candidate.name == key; });
    if (parameter == definition.parameters.end()) {
      extra_keywords.emplace_back(Value::String(name), value);
    } else if (static_cast<size_t>(parameter - definition.parameters.begin()) <
               arguments.positional.size()) {
      return fault("got several values for '" + parameter->name + "'");
    }
  }
  for (size_t i = 0; i < definition.parameters.size(); ++i) {
    const Parameter& parameter = definition.parameters[i];
    Value value(Undefined{&parameter.name});
    if (const Value* given = arguments.Get(i, parameter.name)) {
      value = *given;
    } else if (parameter.fallback != nullptr) {
      ASSIGN_OR_RETURN(value, Eval(*parameter.fallback));
    }
    frame_->Set(parameter.symbol, std::move(value));
  }
  const int varargs = template_.FindSymbol("varargs");
  const int kwargs = template_.FindSymbol("kwargs");
  const size_t count = definition.parameters.size();
  if (arguments.positional.size() > count && varargs < 0) {
    return fault("takes not more than " + std::to_string(count) + " arguments");
  }
  if (!extra_keywords.empty() && kwargs < 0) {
    return fault("takes no argument '" + ToText(extra_keywords[0].first).bytes() + "'");
  }
  if (varargs >= 0) {
    const auto& given = arguments.positional;
    const auto first = given.begin() + static_cast<std::ptrdiff_t>(std::min(count, given.size()));
    frame_->Set(varargs, MakeList(std::vector<Value>(first, given.end()), true));
  }
  if (kwargs >= 0) frame_->Set(kwargs, MakeDict(std::move(extra_keywords)));
  return OkStatus();
}

Result<Value> Interpreter::CallMacro(const Macro& macro, const Arguments& arguments,
                                     const Value* caller) {
  const Depth depth(*this);
  RETURN_IF_ERROR(depth.Check(macro.definition.line));
  const Scope scope(*this, macro.frame);
  RETURN_IF_ERROR(BindParameters(macro, arguments));
  if (caller != nullptr) {
    const int symbol = template_.FindSymbol("caller");
    if (symbol >= 0) frame_->Set(symbol, *caller);
  }
  ASSIGN_OR_RETURN(Text text, Capture(macro.definition.body));
  auto made = runtime_.Made(std::move(text));
  if (!made.ok()) return At(macro.definition.line, made.status());
  return made;
}

Result<Value> Interpreter::CallLoop(Loop& loop, const Arguments& arguments) {
  if (loop.statement == nullptr || arguments.positional.size() != 1) {
    return InvalidArgument("loop(...) needs a recursive loop and one argument");
  }
  const Statement& statement = *loop.statement;
  const Depth depth(*this);
  RETURN_IF_ERROR(depth.Check(statement.line));
  Text captured;
  Text* before_output = std::exchange(output_, &captured);
  Frame* before_frame = std::exchange(frame_, loop.frame);
  const Status status = RunFor(statement, arguments.positional[0], loop.depth + 1);
  output_ = before_output;
  frame_ = before_frame;
  RETURN_IF_ERROR(status);
  return Value(std::move(captured));
}

}  // namespace muselet::jinja
