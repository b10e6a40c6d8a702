#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

namespace muselet {
namespace {

struct LogState {
  std::shared_ptr<spdlog::logger> logger;
  bool json = false;
  std::string process_name;
};

LogState& State() {
  static LogState state = [] {
    LogState initial;
    initial.logger = std::make_shared<spdlog::logger>(
        "muselet", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    initial.logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %v");
    initial.logger->set_level(spdlog::level::warn);
    return initial;
  }();
  return state;
}

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::string Quote(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string Value(const LogField& field) {
  return field.quoted() ? Quote(field.text()) : field.text();
}

std::string JsonLine(LogLevel level, std::string_view message, const LogFields& fields) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const double seconds = std::chrono::duration<double>(now).count();
  const auto name = spdlog::level::to_string_view(SpdlogLevel(level));
  std::string line = fmt::format(R"({{"ts":{:.6f},"level":"{}")", seconds,
                                 std::string_view(name.data(), name.size()));
  if (!State().process_name.empty()) line += ",\"role\":" + Quote(State().process_name);
  line += ",\"msg\":" + Quote(message);
  for (const LogField& field : fields) line += "," + Quote(field.key()) + ":" + Value(field);
  return line + "}";
}

std::string TextLine(std::string_view message, const LogFields& fields) {
  std::string line(message);
  for (const LogField& field : fields) line += "  " + field.key() + "=" + Value(field);
  return line;
}

void Write(LogLevel level, std::string_view message, const LogFields& fields) {
  const LogState& state = State();
  const auto spdlog_level = SpdlogLevel(level);
  if (!state.logger->should_log(spdlog_level)) return;
  const std::string line =
      state.json ? JsonLine(level, message, fields) : TextLine(message, fields);
  state.logger->log(spdlog_level, "{}", line);
}

}  // namespace

void InitLog(const LogOptions& options) {
  LogState& state = State();
  state.json = options.format == LogFormat::kJson ||
               (options.format == LogFormat::kAuto && isatty(STDERR_FILENO) == 0);
  state.process_name = options.process_name;
  state.logger->set_pattern(state.json ? "%v" : "%H:%M:%S.%e %L %v");
  state.logger->set_level(SpdlogLevel(options.level));
  state.logger->flush_on(spdlog::level::debug);
}

void LogDebug(std::string_view message, const LogFields& fields) {
  Write(LogLevel::kDebug, message, fields);
}
void LogInfo(std::string_view message, const LogFields& fields) {
  Write(LogLevel::kInfo, message, fields);
}
void LogWarn(std::string_view message, const LogFields& fields) {
  Write(LogLevel::kWarn, message, fields);
}
void LogError(std::string_view message, const LogFields& fields) {
  Write(LogLevel::kError, message, fields);
}

}  // namespace muselet
