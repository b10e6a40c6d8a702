#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace muselet::check_internal {

void Fail(const char* file, int line, const char* expression, const std::string& message) {
  std::fprintf(stderr, "CHECK failed at %s:%d: %s%s%s%s\n", file, line, expression,
               message.empty() ? "" : " (", message.c_str(), message.empty() ? "" : ")");
  std::fflush(stderr);
  std::abort();
}

}  // namespace muselet::check_internal
