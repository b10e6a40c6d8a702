// jinja2's filters and tests, Python's methods of str, dict, list and tuple, and the global
// functions of Hugging Face's chat template environment. What changes a value in place (append,
// update) is refused, as the sandbox of that environment does.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "node/text/jinja/runtime.h"

namespace muselet::jinja {

bool IsKnownFilter(std::string_view name);
// REQUIRES: IsKnownFilter(name).
Result<Value> ApplyFilter(Runtime& runtime, std::string_view name, const Value& input,
                          const Arguments& arguments);

bool IsKnownTest(std::string_view name);
// REQUIRES: IsKnownTest(name).
Result<bool> ApplyTest(Runtime& runtime, std::string_view name, const Value& input,
                       const Arguments& arguments);

bool HasMethod(const Value& value, std::string_view name);
// REQUIRES: HasMethod(self, name).
Result<Value> CallMethod(Runtime& runtime, const Value& self, std::string_view name,
                         const Arguments& arguments);

// raise_exception, strftime_now, range, namespace, dict, cycler, joiner; null if there is none.
BuiltinFunction FindFunction(std::string_view name);
// Members of namespaces, loops, cyclers and joiners.
Result<Value> GetMember(Runtime& runtime, Object& object, const std::string& name);
// Calls of what is not a macro.
Result<Value> CallObject(Runtime& runtime, Object& object, const Arguments& arguments);

// json.dumps as Hugging Face's tojson calls it (ensure_ascii, indent, separators, sort_keys).
Result<Value> ToJson(Runtime& runtime, const Value& value, const Arguments& arguments);
// "..." % values, and the format filter.
Result<Value> FormatPercent(Runtime& runtime, const Text& format, const Value& values);
// "...".format(...).
Result<Value> FormatBraces(Runtime& runtime, const Text& format, const Arguments& arguments);
// time.strftime of a UTC time.
Result<std::string> FormatTime(int64_t unix_us, const std::string& format);

// Binary operators of Python: + - * / // % **.
Result<Value> Arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b);

// Python's str.strip: characters of `chars`, or white space if it is null.
Text Strip(const Text& text, const std::string* chars, bool left, bool right);
Result<Value> ReplaceText(Runtime& runtime, const Text& text, const Text& from, const Text& to,
                          int64_t count);
Text MapCase(const Text& text, bool upper);
Text Capitalize(const Text& text);

}  // namespace muselet::jinja
