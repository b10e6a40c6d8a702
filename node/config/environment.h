// The only place where the program looks at its environment.
#pragma once

#include <map>
#include <string>

namespace muselet {

// Variables that are not options of the cluster: the file itself, and the key of chat and bench.
inline constexpr const char* kConfigVariable = "MUSELET_CONFIG";
inline constexpr const char* kApiKeyVariable = "MUSELET_API_KEY";

// Every MUSELET_* variable and its value; an empty value counts as not set. Called once, in main,
// before threads start.
std::map<std::string, std::string> ReadEnvironment();

}  // namespace muselet
