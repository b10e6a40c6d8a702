#include "node/gateway/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

#include "base/mapped_file.h"

namespace muselet {
namespace {

constexpr size_t kFileBytesMax = 1 << 20;
constexpr size_t kKeyBytesMin = 1;
constexpr size_t kKeyBytesMax = 512;

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

}  // namespace

ApiKeys::Digest ApiKeys::DigestOf(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

Status ApiKeys::Add(std::string_view key, size_t surface) {
  if (key.size() < kKeyBytesMin || key.size() > kKeyBytesMax)
    return InvalidArgument("a key needs " + std::to_string(kKeyBytesMin) + " to " +
                           std::to_string(kKeyBytesMax) + " characters");
  if (!std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7F; }))
    return InvalidArgument("a key may hold printable ASCII characters only, and no spaces");
  const std::optional<size_t> owner = Find(key);
  if (owner.has_value() && *owner != surface)
    return InvalidArgument("this key belongs to another surface already");
  if (!owner.has_value()) keys_.push_back({DigestOf(key), surface});
  return OkStatus();
}

Status ApiKeys::AddFile(const std::string& path, size_t surface) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kFileBytesMax));
  const size_t before = keys_.size();
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = Trim(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    ++line_number;
    if (line.empty() || line.front() == '#') continue;
    const Status added = Add(line, surface);
    if (!added.ok()) return added.WithContext(path + ":" + std::to_string(line_number));
  }
  if (keys_.size() == before)
    return InvalidArgument(path + ": no key in it: put one key on each line");
  return OkStatus();
}

std::optional<size_t> ApiKeys::Find(std::string_view key) const {
  const Digest digest = DigestOf(key);
  std::optional<size_t> surface;
  for (const Entry& entry : keys_) {
    if (CRYPTO_memcmp(digest.data(), entry.digest.data(), digest.size()) == 0)
      surface = entry.surface;
  }
  return surface;
}

}  // namespace muselet
