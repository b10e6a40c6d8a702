// Broken invariants end the process, in release builds too: a wrong answer is worse than a restart,
// and the supervisor restarts us. Never CHECK on anything a user, a file or a peer can cause: that
// is base/status.h.
#pragma once

#include <sstream>
#include <string>

namespace muselet::check_internal {

// Prints "CHECK failed at file:line: expression (message)" to stderr and aborts.
[[noreturn]] void Fail(const char* file, int line, const char* expression,
                       const std::string& message);

template <typename... Parts>
std::string Join(const Parts&... parts) {
  std::ostringstream out;
  static_cast<void>((out << ... << parts));
  return out.str();
}

}  // namespace muselet::check_internal

// CHECK(condition, parts...): the parts are streamed, one after the other, into the message.
#define CHECK(condition, ...)                                                        \
  do {                                                                               \
    if (!(condition)) [[unlikely]]                                                   \
      ::muselet::check_internal::Fail(__FILE__, __LINE__, #condition,                \
                                      ::muselet::check_internal::Join(__VA_ARGS__)); \
  } while (false)
