#include "comms/wire_keys.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/mapped_file.h"

namespace muselet {
namespace {

constexpr size_t kKeyLength = 40;
constexpr size_t kFileBytesMax = 1 << 20;
constexpr std::string_view kZ85Signs = ".-:+=^!/*?&<>()[]{}@%$#";
constexpr const char* kSecretWord = "muselet-secret-key";
constexpr const char* kPublicWord = "muselet-public-key";

struct KeyLine {
  int number = 0;
  std::string word;  // kSecretWord, kPublicWord, or "" for a key that stands by itself
  std::string key;
};

Status Fault(const std::string& path, int line, const std::string& problem) {
  return InvalidArgument(path + ":" + std::to_string(line) + ": " + problem);
}

// Never repeats what stands in the file: it may be a secret.
Result<std::vector<KeyLine>> ReadKeyLines(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kFileBytesMax));
  std::vector<KeyLine> lines;
  std::istringstream input(text);
  std::string line;
  for (int number = 1; std::getline(input, line); ++number) {
    std::istringstream words(line);
    KeyLine found{number, "", ""};
    words >> found.key;
    if (found.key.empty() || found.key == "#") continue;
    if (found.key == kSecretWord || found.key == kPublicWord) {
      found.word = found.key;
      found.key.clear();
      words >> found.key;
    }
    if (!IsWireKey(found.key)) {
      return Fault(path, number, "no key of muselet keys generate (40 characters of Z85)");
    }
    lines.push_back(std::move(found));
  }
  return lines;
}

// A new file of our own, or the errno.
int WriteNewFile(const std::string& path, const std::string& text, mode_t mode) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) return errno;
  const ssize_t written = write(fd, text.data(), text.size());
  int fault = 0;
  if (written < 0) {
    fault = errno;
  } else if (static_cast<size_t>(written) != text.size()) {
    fault = ENOSPC;
  }
  if (close(fd) != 0 && fault == 0) fault = errno;
  if (fault != 0) unlink(path.c_str());
  return fault;
}

Status WriteFault(const std::string& path, int fault) {
  if (fault == EEXIST) {
    return InvalidArgument(path + " exists: keys are never overwritten; choose another name");
  }
  return Unavailable(path + ": " + std::strerror(fault));
}

}  // namespace

Status CheckWireKeysWork() {
  if (zmq_has("curve") == 1) return OkStatus();
  return Unavailable(
      "the libzmq of this program was built without CURVE: wires cannot be secured (install one "
      "that was built with libsodium)");
}

bool IsWireKey(std::string_view text) {
  return text.size() == kKeyLength && std::all_of(text.begin(), text.end(), [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                  kZ85Signs.find(c) != std::string_view::npos;
         });
}

Result<WireKeyPair> NewWireKeyPair() {
  RETURN_IF_ERROR(CheckWireKeysWork());
  char public_key[kKeyLength + 1];
  char secret_key[kKeyLength + 1];
  if (zmq_curve_keypair(public_key, secret_key) != 0) {
    return Internal(std::string("no key pair can be made: ") + zmq_strerror(zmq_errno()));
  }
  return WireKeyPair{public_key, secret_key};
}

Result<std::string> WriteWireKeyFiles(const std::string& prefix) {
  ASSIGN_OR_RETURN(const WireKeyPair pair, NewWireKeyPair());
  const std::string name = prefix.substr(prefix.rfind('/') + 1);
  if (name.empty()) return InvalidArgument(prefix + " ends with no name: write DIRECTORY/NAME");
  const std::string secret_path = prefix + ".key";
  const std::string public_path = prefix + ".pub";
  // The public one first: a secret key without its other half would be the worse remainder.
  const std::string public_line = std::string(kPublicWord) + " " + pair.public_key + " " + name;
  int fault = WriteNewFile(public_path, public_line + "\n", 0644);
  if (fault != 0) return WriteFault(public_path, fault);
  fault = WriteNewFile(secret_path, std::string(kSecretWord) + " " + pair.secret_key + "\n", 0600);
  if (fault != 0) {
    unlink(public_path.c_str());
    return WriteFault(secret_path, fault);
  }
  return pair.public_key;
}

Result<WireKeyPair> ReadSecretKeyFile(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & 077) != 0) {
    return PermissionDenied(path + ": others than its owner may use this secret key: chmod 600 " +
                            path);
  }
  ASSIGN_OR_RETURN(const std::vector<KeyLine> lines, ReadKeyLines(path));
  if (lines.size() != 1) return InvalidArgument(path + ": one secret key is needed");
  if (lines[0].word != kSecretWord) {
    return Fault(path, lines[0].number, "a public key: the .key file of the pair is needed");
  }
  WireKeyPair pair{std::string(kKeyLength, '\0'), lines[0].key};
  if (zmq_curve_public(pair.public_key.data(), pair.secret_key.c_str()) != 0) {
    return Fault(path, lines[0].number, std::string("no secret key: ") + zmq_strerror(zmq_errno()));
  }
  return pair;
}

Result<std::vector<std::string>> ReadPublicKeysFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<KeyLine> lines, ReadKeyLines(path));
  std::vector<std::string> keys;
  for (const KeyLine& line : lines) {
    if (line.word == kSecretWord) {
      return Fault(path, line.number, "a secret key: it must not be here, its .pub file's line");
    }
    keys.push_back(line.key);
  }
  if (keys.empty()) return InvalidArgument(path + ": no key in it: put one on each line");
  return keys;
}

}  // namespace muselet
