#include "node/cli/version.h"

#include "base/json.h"
#include "base/messages.h"

namespace muselet {

std::string_view SoftwareVersion() {
  return MUSELET_VERSION;
}

std::string VersionText() {
  return std::string("muselet ") + MUSELET_VERSION + " (" + MUSELET_BUILD_TYPE + ", g++ " +
         __VERSION__ + ", protocol " + std::to_string(kProtocolVersion) + ")\n";
}

std::string VersionJson() {
  Json json;
  json["version"] = MUSELET_VERSION;
  json["protocol"] = kProtocolVersion;
  json["compiler"] = std::string("g++ ") + __VERSION__;
  json["build_type"] = MUSELET_BUILD_TYPE;
  json["backends"] = {"cpu"};
  return WriteJson(json) + "\n";
}

}  // namespace muselet
