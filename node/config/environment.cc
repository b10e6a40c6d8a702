#include "node/config/environment.h"

#include <unistd.h>

#include <string_view>

namespace muselet {

std::map<std::string, std::string> ReadEnvironment() {
  constexpr std::string_view kPrefix = "MUSELET_";
  std::map<std::string, std::string> variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (text.substr(0, kPrefix.size()) != kPrefix || equals == std::string_view::npos) continue;
    if (equals + 1 == text.size()) continue;
    variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

}  // namespace muselet
