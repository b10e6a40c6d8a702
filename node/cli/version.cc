#include "node/cli/version.h"

#include "base/json.h"
#include "base/messages.h"

namespace muselet {

std::string_view SoftwareVersion() {
  return MUSELET_VERSION;
}

std::string VersionText() {
  return std::string("muselet ") + MUSELET_VERSION + " (revision " +
         std::string(SoftwareRevision()) + ", " + MUSELET_BUILD_TYPE + ", g++ " + __VERSION__ +
         ", protocol " + std::to_string(kProtocolVersion) + ")\n";
}

std::string VersionJson() {
  Json json;
  json["version"] = MUSELET_VERSION;
  json["revision"] = std::string(SoftwareRevision());
  json["protocol"] = kProtocolVersion;
  json["compiler"] = std::string("g++ ") + __VERSION__;
  json["build_type"] = MUSELET_BUILD_TYPE;
  json["backends"] = {"cpu"};
  return WriteJson(json) + "\n";
}

}  // namespace muselet
