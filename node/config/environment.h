// The only place where the program looks at its environment.
#pragma once

#include <map>
#include <string>

namespace muselet {

// Every MUSELET_* variable and its value; an empty value counts as not set. Called once, in main,
// before threads start.
std::map<std::string, std::string> ReadEnvironment();

}  // namespace muselet
