// The keys of the wires between processes (ZeroMQ's CURVE) and the files that hold them. Keys are
// kept as Z85, 40 characters. `muselet keys generate` writes a pair of files:
//   PREFIX.key   mode 0600   muselet-secret-key KEY
//   PREFIX.pub               muselet-public-key KEY NAME
// Files of public keys may be put together with cat; empty lines and lines that begin with "# " are
// passed over.
//
// Stateless; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace muselet {

struct WireKeyPair {
  std::string public_key;
  std::string secret_key;
};

// Who may connect to a socket that is bound.
enum class WireAudience {
  kMembers,    // processes of the cluster
  kFrontEnds,  // those, and front ends
};

// What a process has and knows. Keys are Z85.
struct WireSecurity {
  WireKeyPair own;
  std::vector<std::string> members;  // beside the own key
  std::vector<std::string> front_ends;
};

// kUnavailable if the libzmq of this program was built without CURVE.
Status CheckWireKeysWork();

// 40 characters of Z85.
bool IsWireKey(std::string_view text);

Result<WireKeyPair> NewWireKeyPair();

// Writes PREFIX.key and PREFIX.pub with a new pair and returns the public key. Existing files are
// never written to: kInvalidArgument then, and nothing is left behind.
Result<std::string> WriteWireKeyFiles(const std::string& prefix);

// The pair of a secret key's file. Faults name the file: kPermissionDenied if others than the owner
// may read it, kInvalidArgument if it holds anything but one secret key.
Result<WireKeyPair> ReadSecretKeyFile(const std::string& path);

// The keys of a file of public keys, at least one. Faults name file and line.
Result<std::vector<std::string>> ReadPublicKeysFile(const std::string& path);

}  // namespace muselet
