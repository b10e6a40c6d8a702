// API keys of the surfaces: which key belongs to whom. Keys are kept as SHA-256 digests and
// compared in constant time, all of them each time, so that timing says nothing about a key.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace muselet {

class ApiKeys {
 public:
  // Adds the keys of a file to a surface: one key a line, blank lines and lines that begin with '#'
  // are skipped. kInvalidArgument names file and line for a key that is too short, too long, has
  // characters a header cannot carry, or belongs to another surface.
  Status AddFile(const std::string& path, size_t surface);
  Status Add(std::string_view key, size_t surface);

  bool empty() const { return keys_.empty(); }
  size_t size() const { return keys_.size(); }
  std::optional<size_t> Find(std::string_view key) const;

 private:
  using Digest = std::array<uint8_t, 32>;
  struct Entry {
    Digest digest;
    size_t surface;
  };
  static Digest DigestOf(std::string_view key);
  std::vector<Entry> keys_;
};

}  // namespace muselet
