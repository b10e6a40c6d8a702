#include "node/cli/keys_command.h"

#include <ostream>

#include "comms/wire_keys.h"
#include "node/gateway/cluster_secret.h"

namespace muselet {

int RunKeysGenerate(const std::string& prefix, const CommandStreams& streams) {
  const Result<std::string> key = WriteWireKeyFiles(prefix);
  if (!key.ok()) {
    streams.err << "muselet: " << key.status().message() << "\n";
    return 2;
  }
  // The key alone on stdout: a script takes it from there.
  streams.out << *key << "\n";
  streams.err << prefix << ".key  secret: security.key_file of the processes that use it\n"
              << prefix << ".pub  public: for security.known_keys_file of the others, or the key "
              << "above, in quotes, as public_key of an entry\n";
  return 0;
}

int RunKeysSecret(const std::string& path, const CommandStreams& streams) {
  const Status written = WriteClusterSecret(path);
  if (!written.ok()) {
    streams.err << "muselet: " << written.message() << "\n";
    return 2;
  }
  streams.err << path << "  secret: security.secret_file of every gateway of the cluster\n";
  return 0;
}

}  // namespace muselet
