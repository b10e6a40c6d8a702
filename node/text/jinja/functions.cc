// Global functions, and the members of the interpreter's objects.
#include <array>
#include <ctime>

#include "node/text/jinja/builtins.h"
#include "node/text/jinja/interpreter.h"

namespace muselet::jinja {
namespace {

Result<Value> RaiseException(Runtime& runtime, const Arguments& arguments) {
  const Value* message = arguments.Get(0, "message");
  return runtime.Raise(message == nullptr ? "" : ToText(*message).bytes());
}

Result<Value> StrftimeNow(Runtime& runtime, const Arguments& arguments) {
  const Value* format = arguments.Get(0, "format");
  if (format == nullptr || !format->is_string()) {
    return InvalidArgument("strftime_now() needs a format");
  }
  ASSIGN_OR_RETURN(std::string text, FormatTime(runtime.now_unix_us(), format->text().bytes()));
  return Value(Text(std::move(text), format->text().any_tainted()));
}

Result<Value> Range(Runtime& runtime, const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3) return InvalidArgument("range() needs 1 to 3 numbers");
  for (const Value& value : given) {
    if (!value.is_integral()) {
      return InvalidArgument("'" + TypeName(value) +
                             "' object cannot be interpreted as an integer");
    }
  }
  const int64_t start = given.size() > 1 ? given[0].integer() : 0;
  const int64_t stop = given.size() > 1 ? given[1].integer() : given[0].integer();
  const int64_t step = given.size() > 2 ? given[2].integer() : 1;
  if (step == 0) return InvalidArgument("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (items.size() >= runtime.limits().range_items_max) {
      return ResourceExhausted("range too big: at most " +
                               std::to_string(runtime.limits().range_items_max) + " items");
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return runtime.Made(std::move(items));
}

Result<Value> MakeNamespace(Runtime& runtime, const Arguments& arguments) {
  Namespace* made = runtime.New<Namespace>();
  for (const Value& source : arguments.positional) {
    if (!source.is_dict()) return InvalidArgument("namespace() takes dicts and keywords");
    for (const auto& [key, value] : source.dict().items) made->Set(ToText(key).bytes(), value);
  }
  for (const auto& [name, value] : arguments.keywords) made->Set(name, value);
  return Value(made);
}

Result<Value> DictFunction(Runtime& runtime, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  for (const Value& source : arguments.positional) {
    if (!source.is_dict()) return InvalidArgument("dict() takes dicts and keywords");
    items.insert(items.end(), source.dict().items.begin(), source.dict().items.end());
  }
  for (const auto& [name, value] : arguments.keywords) {
    items.emplace_back(Value::String(name), value);
  }
  return runtime.Made(std::move(items));
}

Result<Value> MakeCycler(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.empty()) return InvalidArgument("cycler() needs at least one item");
  return Value(runtime.New<Cycler>(arguments.positional));
}

Result<Value> MakeJoiner(Runtime& runtime, const Arguments& arguments) {
  const Value* separator = arguments.Get(0, "sep");
  return Value(runtime.New<Joiner>(separator == nullptr ? Value::String(", ") : *separator));
}

Result<Value> LoopMember(Loop& loop, const std::string& name, Runtime& runtime) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(length - index);
  if (name == "revindex0") return Value(length - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index == length - 1);
  if (name == "length") return Value(length);
  if (name == "depth") return Value(loop.depth + 1);
  if (name == "depth0") return Value(loop.depth);
  if (name == "previtem") return index > 0 ? loop.items[loop.index - 1] : Value();
  if (name == "nextitem") return index + 1 < length ? loop.items[loop.index + 1] : Value();
  if (name == "cycle" || name == "changed") return Value(runtime.New<Method>(Value(&loop), name));
  return Value();
}

Result<Value> CallLoopMethod(Loop& loop, const std::string& name, const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (name == "cycle") {
    if (given.empty()) return InvalidArgument("no items for cycling given");
    return given[loop.index % given.size()];
  }
  const bool same = loop.last_changed.size() == given.size() + 1 &&
                    std::equal(given.begin(), given.end(), loop.last_changed.begin(), Equal);
  loop.last_changed = given;
  loop.last_changed.emplace_back();  // tells "called with nothing" from "not called yet"
  return Value(!same);
}

Result<Value> CallCyclerMethod(Cycler& cycler, const std::string& name) {
  if (name == "reset") {
    cycler.position = 0;
    return Value(None{});
  }
  const Value current = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return current;
}

}  // namespace

BuiltinFunction FindFunction(std::string_view name) {
  struct Entry {
    std::string_view name;
    BuiltinFunction function;
  };
  static constexpr std::array<Entry, 7> kFunctions = {{{"raise_exception", RaiseException},
                                                       {"strftime_now", StrftimeNow},
                                                       {"range", Range},
                                                       {"namespace", MakeNamespace},
                                                       {"dict", DictFunction},
                                                       {"cycler", MakeCycler},
                                                       {"joiner", MakeJoiner}}};
  for (const Entry& entry : kFunctions) {
    if (entry.name == name) return entry.function;
  }
  return nullptr;
}

Result<Value> GetMember(Runtime& runtime, Object& object, const std::string& name) {
  if (object.kind == Object::Kind::kNamespace) {
    const Value* found = static_cast<Namespace&>(object).Find(name);
    return found == nullptr ? Value() : *found;
  }
  if (object.kind == Object::Kind::kLoop) {
    return LoopMember(static_cast<Loop&>(object), name, runtime);
  }
  if (object.kind == Object::Kind::kMacro && name == "name") {
    return Value::String(static_cast<Macro&>(object).definition.name);
  }
  if (object.kind == Object::Kind::kCycler) {
    auto& cycler = static_cast<Cycler&>(object);
    if (name == "current") return cycler.items[cycler.position];
    if (name == "next" || name == "reset") return Value(runtime.New<Method>(Value(&object), name));
  }
  return Value();
}

Result<Value> CallObject(Runtime& runtime, Object& object, const Arguments& arguments) {
  if (object.kind == Object::Kind::kFunction) {
    return static_cast<Function&>(object).function(runtime, arguments);
  }
  if (object.kind == Object::Kind::kJoiner) {
    auto& joiner = static_cast<Joiner&>(object);
    return std::exchange(joiner.used, true) ? joiner.separator : Value::String("");
  }
  if (object.kind != Object::Kind::kMethod) return InvalidArgument("object is not callable");
  auto& method = static_cast<Method&>(object);
  if (!method.self.is_object()) return CallMethod(runtime, method.self, method.name, arguments);
  Object& self = *method.self.object();
  if (self.kind == Object::Kind::kLoop) {
    return CallLoopMethod(static_cast<Loop&>(self), method.name, arguments);
  }
  return CallCyclerMethod(static_cast<Cycler&>(self), method.name);
}

Result<std::string> FormatTime(int64_t unix_us, const std::string& format) {
  constexpr size_t kFormatBytesMax = 1024;
  if (format.size() > kFormatBytesMax) return InvalidArgument("time format is too long");
  const std::time_t seconds = unix_us / 1'000'000 - (unix_us % 1'000'000 < 0 ? 1 : 0);
  std::tm utc{};
  if (gmtime_r(&seconds, &utc) == nullptr) return InvalidArgument("time is out of range");
  std::array<char, 16 * 1024> buffer{};
  // A closing character tells an empty result from one that does not fit.
  const size_t size = std::strftime(buffer.data(), buffer.size(), (format + ".").c_str(), &utc);
  if (size == 0) return InvalidArgument("time format gives too long a text");
  return std::string(buffer.data(), size - 1);
}

}  // namespace muselet::jinja
