// One configuration value: its description, from which the YAML reader, the flags, the variables,
// the JSON Schema and the reference page are all made, and the way into the struct that holds it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"
#include "node/config/yaml_tree.h"

namespace muselet {

enum class ValueKind {
  kBool,      // true, false
  kInteger,   // min..max
  kNumber,    // min..max, may have a fraction
  kBytes,     // 4096, "256MiB"
  kDuration,  // plain numbers are milliseconds; "500ms", "2s", "5m", "100us"; kept in microseconds
  kChoice,    // one of `choices`; kept as its index
  kText,      // not empty
  kName,      // letters, digits, '.', '_', '-'; at most 63 of them
  kModelId,   // as kName, '/' and ':' too, at most 200
  kPath,      // of a file or directory; a relative one starts from the config file's directory
  kHost,      // IP address or host name
  kListen,    // HOST:PORT
  kEndpoint,  // tcp://HOST:PORT or inproc://NAME
  kNames,     // a list of kName
  kDevices,   // a list of device names
  kCounts,    // a list of whole numbers, each min..max
  kKey,       // a public key: 40 characters of Z85
};

// kBool: bool. kInteger, kBytes, kDuration, kChoice: int64_t. kNumber: double. kCounts:
// vector of numbers; the other lists: vector of strings.
using FieldValue = std::variant<bool, int64_t, double, std::string, std::vector<std::string>,
                                std::vector<uint32_t>>;

struct FieldSpec {
  std::string key;  // last part of the path in a section; the whole path of an option
  ValueKind kind = ValueKind::kText;
  std::string meaning;  // one or two sentences, no full stop at the end
  double min = 0;       // numbers only; durations in microseconds
  double max = 0;
  std::vector<std::string> choices = {};  // kChoice only
  bool required = false;                  // sections only
  std::string default_text = {};          // where the struct's own default does not tell it
  bool may_be_empty = false;              // text only: "" is legal and means none
};

// A refusal: what is wrong and what to do.
struct ValueFault {
  std::string problem;
  std::string hint;
};

// The value of `node` as `spec` wants it, or a fault.
std::variant<FieldValue, ValueFault> ParseValue(const FieldSpec& spec, const YamlNode& node);

// As the user would write it: "256MiB", "1.5s", "[n0, n1]". Parses back to the same value.
std::string FormatValue(const FieldSpec& spec, const FieldValue& value);

// What may be written: "1 to 65536", "int8, float32", "HOST:PORT".
std::string DescribeRange(const FieldSpec& spec);

// A field of Target. `get` and `set` touch nothing but that field.
template <typename Target>
struct Field {
  FieldSpec spec;
  std::function<void(Target&, const FieldValue&)> set;
  std::function<FieldValue(const Target&)> get;
};

// Makes a Field from a description and a lambda `[](auto& target) -> auto& { return target.x; }`.
template <typename Target, typename Access>
Field<Target> MakeField(FieldSpec spec, Access access) {
  using Member = std::remove_reference_t<decltype(access(std::declval<Target&>()))>;
  Field<Target> field;
  field.spec = std::move(spec);
  field.set = [access](Target& target, const FieldValue& value) {
    Member& member = access(target);
    if constexpr (std::is_same_v<Member, bool> || std::is_same_v<Member, double> ||
                  std::is_same_v<Member, std::string> ||
                  std::is_same_v<Member, std::vector<std::string>> ||
                  std::is_same_v<Member, std::vector<uint32_t>>) {
      member = std::get<Member>(value);
    } else {
      member = static_cast<Member>(std::get<int64_t>(value));
    }
  };
  field.get = [access](const Target& target) -> FieldValue {
    const Member& member = access(target);
    if constexpr (std::is_same_v<Member, bool> || std::is_same_v<Member, double> ||
                  std::is_same_v<Member, std::string> ||
                  std::is_same_v<Member, std::vector<std::string>> ||
                  std::is_same_v<Member, std::vector<uint32_t>>) {
      return member;
    } else {
      return static_cast<int64_t>(member);
    }
  };
  return field;
}

}  // namespace muselet
