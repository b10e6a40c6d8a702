// What this program is: the release, and how it was built.
#pragma once

#include <string>
#include <string_view>

namespace muselet {

// "0.1.0".
std::string_view SoftwareVersion();
// The commit it was built from, "1a2b3c4d5e6f", or "unknown" outside a git tree.
std::string_view SoftwareRevision();

// One line for people, and a JSON object with version, revision, protocol, compiler, build type,
// backends.
std::string VersionText();
std::string VersionJson();

}  // namespace muselet
