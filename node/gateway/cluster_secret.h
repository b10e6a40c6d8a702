// What the gateways of a cluster share and clients do not know: with it a gateway can tell that
// something came from one of them, and derive the same numbers as they do, without a store.
//
// Immutable; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/status.h"

namespace muselet {

class ClusterSecret {
 public:
  using Digest = std::array<uint8_t, 32>;

  // Known to this process alone: what it signs is of no use after its end.
  static ClusterSecret Random();
  // Of a file (security.secret_file): at least 32 characters; white space around them does not
  // count. Faults name the file: kPermissionDenied if others than the owner may read it.
  static Result<ClusterSecret> ReadFrom(const std::string& path);

  // HMAC-SHA256 of the parts, each with its length before it.
  Digest Sign(std::initializer_list<std::string_view> parts) const;
  // True if other gateways have it too.
  bool shared() const { return shared_; }

 private:
  ClusterSecret(const Digest& key, bool shared) : key_(key), shared_(shared) {}

  Digest key_;
  bool shared_;
};

// Writes a new random secret, mode 0600, to a file that must not exist yet.
Status WriteClusterSecret(const std::string& path);

}  // namespace muselet
