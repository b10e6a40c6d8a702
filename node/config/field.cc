#include "node/config/field.h"

#include <algorithm>
#include <cctype>

#include "comms/wire_keys.h"
#include "node/config/address.h"
#include "node/config/quantity.h"
#include "node/config/rank_placement.h"
#include "node/config/suggestion.h"

namespace muselet {
namespace {

using Parsed = std::variant<FieldValue, ValueFault>;

constexpr size_t kNameMax = 63;
constexpr size_t kModelIdMax = 200;

bool IsNumeric(ValueKind kind) {
  return kind == ValueKind::kInteger || kind == ValueKind::kNumber || kind == ValueKind::kBytes ||
         kind == ValueKind::kDuration;
}

std::string Expected(const FieldSpec& spec) {
  switch (spec.kind) {
    case ValueKind::kBool:
      return "true or false";
    case ValueKind::kInteger:
      return "a whole number";
    case ValueKind::kNumber:
      return "a number";
    case ValueKind::kBytes:
      return "a number of bytes, such as 1048576 or \"256MiB\"";
    case ValueKind::kDuration:
      return "a time, such as \"500ms\", \"2s\" or a number of milliseconds";
    case ValueKind::kChoice:
      return "one of " + DescribeRange(spec);
    case ValueKind::kText:
    case ValueKind::kPath:
      return "text";
    case ValueKind::kName:
    case ValueKind::kModelId:
      return "a name";
    case ValueKind::kHost:
      return "a host name or IP address";
    case ValueKind::kListen:
      return "HOST:PORT";
    case ValueKind::kEndpoint:
      return "tcp://HOST:PORT or inproc://NAME";
    case ValueKind::kNames:
      return "a list of names";
    case ValueKind::kDevices:
      return "a list of devices, such as [cpu] or [cpu:0, cpu:1]";
    case ValueKind::kCounts:
      return "a list of whole numbers, such as [15, 15]";
    case ValueKind::kKey:
      return "a public key of muselet keys generate";
  }
  return "";
}

ValueFault WrongType(const FieldSpec& spec, const YamlNode& node) {
  return {"expected " + Expected(spec) + ", found " + DescribeNode(node), ""};
}

// A number in the unit that is kept.
Result<double> ReadNumber(const FieldSpec& spec, const std::string& text) {
  if (spec.kind == ValueKind::kInteger || spec.kind == ValueKind::kNumber) return ParseNumber(text);
  const Result<int64_t> quantity =
      spec.kind == ValueKind::kBytes ? ParseBytes(text) : ParseDurationUs(text);
  if (!quantity.ok()) return quantity.status();
  return static_cast<double>(*quantity);
}

Parsed ParseNumeric(const FieldSpec& spec, const YamlNode& node) {
  const bool has_unit = spec.kind == ValueKind::kBytes || spec.kind == ValueKind::kDuration;
  if (node.quoted && !has_unit) {
    return ValueFault{"expected " + Expected(spec) + ", found the text " + DescribeNode(node),
                      "remove the quotes"};
  }
  const Result<double> number = ReadNumber(spec, node.text);
  if (!number.ok()) return WrongType(spec, node);
  if (spec.kind == ValueKind::kInteger &&
      *number != static_cast<double>(static_cast<int64_t>(std::clamp(*number, -1e15, 1e15)))) {
    return WrongType(spec, node);
  }
  if (*number < spec.min || *number > spec.max) {
    return ValueFault{node.text + " is out of range", "legal: " + DescribeRange(spec)};
  }
  if (spec.kind == ValueKind::kNumber) return FieldValue(*number);
  return FieldValue(static_cast<int64_t>(*number));
}

Parsed ParseBool(const FieldSpec& spec, const YamlNode& node) {
  if (!node.quoted && (node.text == "true" || node.text == "false")) {
    return FieldValue(node.text == "true");
  }
  ValueFault fault = WrongType(spec, node);
  fault.hint = NearestWord(node.text, {"true", "false", "yes", "no", "on", "off"}).empty()
                   ? ""
                   : "write true or false, without quotes";
  return fault;
}

Parsed ParseChoice(const FieldSpec& spec, const YamlNode& node) {
  const auto found = std::find(spec.choices.begin(), spec.choices.end(), node.text);
  if (found != spec.choices.end()) return FieldValue(int64_t{found - spec.choices.begin()});
  ValueFault fault = WrongType(spec, node);
  fault.hint = DidYouMean(node.text, spec.choices);
  return fault;
}

bool IsWord(std::string_view text, size_t length_max, std::string_view extra) {
  if (text.empty() || text.size() > length_max) return false;
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || extra.find(c) != extra.npos;
  });
}

// Empty if `device` can be used.
std::string DeviceProblem(const std::string& device) {
  const std::string name = DeviceOf(device);
  if (name.empty()) return "unknown device \"" + device + "\"";
  if (name.starts_with("cuda")) return device + ": this build has no CUDA backend";
  return "";
}

// Empty, or what is wrong with the text.
std::string TextProblem(ValueKind kind, const std::string& text) {
  Status status;
  switch (kind) {
    case ValueKind::kName:
      if (IsWord(text, kNameMax, "._-")) return "";
      return "a name has 1 to 63 letters, digits, '.', '_' or '-'";
    case ValueKind::kModelId:
      if (IsWord(text, kModelIdMax, "._-/:")) return "";
      return "a model id has 1 to 200 letters, digits, '.', '_', '-', '/' or ':'";
    case ValueKind::kHost:
      status = CheckHost(text);
      break;
    case ValueKind::kListen:
      status = ParseHostPort(text).status();
      break;
    case ValueKind::kEndpoint:
      status = CheckEndpoint(text);
      break;
    case ValueKind::kKey:
      return IsWireKey(text) ? "" : "a key has 40 characters of Z85";
    default:
      return text.empty() ? "must not be empty" : "";
  }
  return status.ok() ? "" : status.message();
}

Parsed ParseText(const FieldSpec& spec, const YamlNode& node) {
  const bool none = spec.may_be_empty && node.text.empty();
  const std::string problem = none ? "" : TextProblem(spec.kind, node.text);
  if (problem.empty()) return FieldValue(node.text);
  return ValueFault{DescribeNode(node) + ": " + problem, "expected " + Expected(spec)};
}

bool IsSameItem(const FieldSpec& spec, const std::string& a, const std::string& b) {
  return spec.kind == ValueKind::kDevices ? DeviceOf(a) == DeviceOf(b) : a == b;
}

Parsed ParseList(const FieldSpec& spec, const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kSequence) {
    ValueFault fault = WrongType(spec, node);
    if (node.kind == YamlNode::Kind::kScalar) fault.hint = "write [" + node.text + "]";
    return fault;
  }
  if (node.items.empty()) return ValueFault{"the list is empty", "name at least one"};
  std::vector<std::string> values;
  for (const YamlNode& item : node.items) {
    if (item.kind != YamlNode::Kind::kScalar) return WrongType(spec, item);
    const std::string problem = spec.kind == ValueKind::kDevices
                                    ? DeviceProblem(item.text)
                                    : TextProblem(ValueKind::kName, item.text);
    if (!problem.empty()) {
      return ValueFault{problem,
                        spec.kind == ValueKind::kDevices ? "use cpu, or cpu:0, cpu:1, ..." : ""};
    }
    const auto same = std::find_if(values.begin(), values.end(), [&](const std::string& value) {
      return IsSameItem(spec, value, item.text);
    });
    if (same != values.end()) {
      return ValueFault{"\"" + item.text + "\" stands in the list twice",
                        *same == item.text ? "" : *same + " is the same"};
    }
    values.push_back(item.text);
  }
  return FieldValue(values);
}

Parsed ParseCounts(const FieldSpec& spec, const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kSequence) return WrongType(spec, node);
  if (node.items.empty()) return ValueFault{"the list is empty", "leave the key out"};
  FieldSpec each = spec;
  each.kind = ValueKind::kInteger;
  std::vector<uint32_t> counts;
  for (const YamlNode& item : node.items) {
    if (item.kind != YamlNode::Kind::kScalar) return WrongType(each, item);
    Parsed count = ParseNumeric(each, item);
    if (std::holds_alternative<ValueFault>(count)) return count;
    counts.push_back(static_cast<uint32_t>(std::get<int64_t>(std::get<FieldValue>(count))));
  }
  return FieldValue(counts);
}

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string FormatBound(const FieldSpec& spec, double bound) {
  const auto whole = static_cast<int64_t>(bound);
  if (spec.kind == ValueKind::kBytes) return FormatBytes(whole);
  return spec.kind == ValueKind::kDuration ? FormatDurationUs(whole) : FormatNumber(bound);
}

}  // namespace

std::variant<FieldValue, ValueFault> ParseValue(const FieldSpec& spec, const YamlNode& node) {
  const bool list = spec.kind == ValueKind::kNames || spec.kind == ValueKind::kDevices;
  if (list) return ParseList(spec, node);
  if (spec.kind == ValueKind::kCounts) return ParseCounts(spec, node);
  if (node.kind != YamlNode::Kind::kScalar) return WrongType(spec, node);
  if (spec.kind == ValueKind::kBool) return ParseBool(spec, node);
  if (spec.kind == ValueKind::kChoice) return ParseChoice(spec, node);
  return IsNumeric(spec.kind) ? ParseNumeric(spec, node) : ParseText(spec, node);
}

std::string FormatValue(const FieldSpec& spec, const FieldValue& value) {
  switch (spec.kind) {
    case ValueKind::kBool:
      return std::get<bool>(value) ? "true" : "false";
    case ValueKind::kInteger:
      return std::to_string(std::get<int64_t>(value));
    case ValueKind::kNumber:
      return FormatNumber(std::get<double>(value));
    case ValueKind::kBytes:
      return FormatBytes(std::get<int64_t>(value));
    case ValueKind::kDuration:
      return FormatDurationUs(std::get<int64_t>(value));
    case ValueKind::kChoice:
      return spec.choices[static_cast<size_t>(std::get<int64_t>(value))];
    case ValueKind::kNames:
    case ValueKind::kDevices:
      return "[" + Join(std::get<std::vector<std::string>>(value)) + "]";
    case ValueKind::kCounts: {
      std::vector<std::string> words;
      for (const uint32_t count : std::get<std::vector<uint32_t>>(value)) {
        words.push_back(std::to_string(count));
      }
      return "[" + Join(words) + "]";
    }
    default:
      return std::get<std::string>(value);
  }
}

std::string DescribeRange(const FieldSpec& spec) {
  if (spec.kind == ValueKind::kChoice) return Join(spec.choices);
  if (IsNumeric(spec.kind))
    return FormatBound(spec, spec.min) + " to " + FormatBound(spec, spec.max);
  if (spec.kind == ValueKind::kBool) return "true, false";
  if (spec.kind == ValueKind::kListen) return "HOST:PORT";
  if (spec.kind == ValueKind::kEndpoint) return "tcp://HOST:PORT, inproc://NAME";
  return "";
}

}  // namespace muselet
