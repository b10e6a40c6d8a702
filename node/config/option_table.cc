#include "node/config/option_table.h"

#include <cctype>
#include <iterator>

namespace muselet {

std::string FlagOf(std::string_view key) {
  std::string flag = "--" + std::string(key);
  for (char& c : flag) {
    if (c == '.' || c == '_') c = '-';
  }
  return flag;
}

std::string VariableOf(std::string_view key) {
  std::string variable = "MUSELET_" + std::string(key);
  for (char& c : variable) {
    c = c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return variable;
}

std::string Option::flag() const {
  return FlagOf(key());
}
std::string Option::variable() const {
  return VariableOf(key());
}

std::string Placeholder(const FieldSpec& spec) {
  switch (spec.kind) {
    case ValueKind::kBool:
      return "true|false";
    case ValueKind::kInteger:
    case ValueKind::kNumber:
      return "N";
    case ValueKind::kBytes:
      return "BYTES";
    case ValueKind::kDuration:
      return "TIME";
    case ValueKind::kChoice: {
      std::string text;
      for (const std::string& choice : spec.choices) text += (text.empty() ? "" : "|") + choice;
      return text;
    }
    case ValueKind::kPath:
      return "PATH";
    case ValueKind::kListen:
      return "HOST:PORT";
    case ValueKind::kEndpoint:
      return "ENDPOINT";
    case ValueKind::kHost:
      return "HOST";
    case ValueKind::kCounts:
      return "[N, ...]";
    case ValueKind::kKey:
      return "KEY";
    default:
      return "NAME";
  }
}

const std::vector<Option>& OptionTable() {
  static const std::vector<Option> table = [] {
    std::vector<Option> all;
    for (auto rows :
         {ProcessOptions(), EngineOptionRows(), GatewayOptionRows(), SchedulerOptionRows()}) {
      std::move(rows.begin(), rows.end(), std::back_inserter(all));
    }
    return all;
  }();
  return table;
}

}  // namespace muselet
