#include "node/gateway/cluster_secret.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/mapped_file.h"

namespace muselet {
namespace {

constexpr size_t kFileBytesMax = 4096;
constexpr size_t kSecretCharactersMin = 32;
constexpr std::string_view kSpace = " \t\r\n";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

ClusterSecret::Digest RandomDigest() {
  ClusterSecret::Digest digest;
  const int drawn = RAND_bytes(digest.data(), static_cast<int>(digest.size()));
  CHECK(drawn == 1, "the system has no randomness");
  return digest;
}

}  // namespace

ClusterSecret ClusterSecret::Random() {
  return ClusterSecret(RandomDigest(), false);
}

Result<ClusterSecret> ClusterSecret::ReadFrom(const std::string& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return PermissionDenied(path + " can be read by others than its owner: chmod 600 it");
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kFileBytesMax));
  const std::string_view secret = Trim(text);
  if (secret.size() < kSecretCharactersMin)
    return InvalidArgument(path + ": a secret needs " + std::to_string(kSecretCharactersMin) +
                           " characters, this one has " + std::to_string(secret.size()) +
                           "; muselet keys secret makes one");
  Digest key;
  SHA256(reinterpret_cast<const unsigned char*>(secret.data()), secret.size(), key.data());
  return ClusterSecret(key, true);
}

ClusterSecret::Digest ClusterSecret::Sign(std::initializer_list<std::string_view> parts) const {
  std::string message;
  for (const std::string_view part : parts) {
    message += std::to_string(part.size());
    message += ':';
    message += part;
  }
  Digest digest;
  unsigned int bytes = 0;
  HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), digest.data(),
       &bytes);
  CHECK(bytes == digest.size(), "HMAC-SHA256 has ", digest.size(), " bytes, not ", bytes);
  return digest;
}

Status WriteClusterSecret(const std::string& path) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : RandomDigest()) {
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
  text += '\n';
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return InvalidArgument(path + ": " + std::strerror(errno));
  const ssize_t written = ::write(fd, text.data(), text.size());
  const bool closed = ::close(fd) == 0;
  if (written == static_cast<ssize_t>(text.size()) && closed) return OkStatus();
  ::unlink(path.c_str());
  return Unavailable(path + " cannot be written");
}

}  // namespace muselet
