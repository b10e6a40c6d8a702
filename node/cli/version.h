// What this program is: the release, and how it was built.
#pragma once

#include <string>
#include <string_view>

namespace muselet {

// "0.1.0".
std::string_view SoftwareVersion();

// One line for people, and a JSON object with version, protocol, compiler, build type, backends.
std::string VersionText();
std::string VersionJson();

}  // namespace muselet
