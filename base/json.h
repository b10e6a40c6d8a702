// The one door to JSON: HTTP bodies, config.json, tokenizer.json, safetensors headers. Behind it is
// nlohmann's ordered_json (object order is kept: chat templates and tool schemas depend on it).
// Parsing never throws and is bounded; duplicate keys are refused, because two readers of one text
// must not see two meanings.
//
// The header is heavy to compile: include it from .cc files, not from headers, where you can.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace muselet {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t depth_max = 32;          // nesting of arrays and objects
  size_t values_max = 1'000'000;  // values of any kind, keys included
};

// The whole of `text` as one JSON value. kInvalidArgument that says what is wrong and where (line,
// column, byte offset; the first two count from 1, in bytes) for anything that RFC 8259 does not
// allow (invalid UTF-8, NaN, trailing text, lone surrogates), a number out of range, a duplicate
// key, or a limit. `fault_key`, if given, is set to the key at fault where one is: the duplicate,
// or the outermost object's member that holds the number or the depth.
Result<Json> ParseJson(std::string_view text, const JsonLimits& limits = {},
                       std::string* fault_key = nullptr);

// Compact JSON. Bytes that are not UTF-8 become U+FFFD, so the output is always valid.
std::string WriteJson(const Json& value);

// `text` as a JSON string with its quotes, appended to `out`. The hot path of streaming answers.
// Bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string_view text, std::string& out);

// Typed look-ups that never throw. `where` names the object in messages, e.g. "config.json". A
// missing key or JSON null gives `fallback`; a value of another type gives kInvalidArgument "where:
// key: expected ...".
Result<int64_t> GetInt(const Json& object, std::string_view key, int64_t fallback,
                       std::string_view where);
Result<double> GetDouble(const Json& object, std::string_view key, double fallback,
                         std::string_view where);
Result<bool> GetBool(const Json& object, std::string_view key, bool fallback,
                     std::string_view where);
Result<std::string> GetString(const Json& object, std::string_view key, std::string_view fallback,
                              std::string_view where);
// The member, or null if `object` is not an object, lacks the key, or holds JSON null there.
const Json* FindMember(const Json& object, std::string_view key);

}  // namespace muselet
