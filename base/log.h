// One structured line per event: a message and key=value fields. On a terminal the lines are for
// people, otherwise they are JSON objects (ts, level, role, msg, fields), one a line, always valid
// JSON. Prompts and answers are never logged.
//
// Any thread may log. InitLog is called once, in main, before threads start; without it only
// warnings and errors are printed, which is what tests want.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace muselet {

enum class LogLevel { kDebug, kInfo, kWarn, kError };
enum class LogFormat { kAuto, kText, kJson };  // kAuto: text if stderr is a terminal

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kAuto;
  std::string process_name;  // printed as "role" in JSON; may be empty
};

void InitLog(const LogOptions& options);

// A field's value is shown as a JSON number or boolean when it was made from one, as a string
// otherwise.
class LogField {
 public:
  LogField(std::string_view key, std::string_view value) : key_(key), text_(value), quoted_(true) {}
  LogField(std::string_view key, const char* value) : LogField(key, std::string_view(value)) {}
  LogField(std::string_view key, const std::string& value)
      : LogField(key, std::string_view(value)) {}
  LogField(std::string_view key, bool value) : key_(key), text_(value ? "true" : "false") {}
  template <typename Number>
  requires std::is_arithmetic_v<Number> LogField(std::string_view key, Number value)
      : key_(key), text_(std::to_string(value)) {}

  const std::string& key() const { return key_; }
  const std::string& text() const { return text_; }
  bool quoted() const { return quoted_; }

 private:
  std::string key_;
  std::string text_;
  bool quoted_ = false;
};
using LogFields = std::vector<LogField>;

void LogDebug(std::string_view message, const LogFields& fields = {});
void LogInfo(std::string_view message, const LogFields& fields = {});
void LogWarn(std::string_view message, const LogFields& fields = {});
void LogError(std::string_view message, const LogFields& fields = {});

}  // namespace muselet
