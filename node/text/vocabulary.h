// The pieces of a vocabulary: id to text and back. One block of bytes and two tables; nothing per
// token.
//
// Immutable after building; any thread may read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace muselet {

class Vocabulary {
 public:
  struct Entry {
    TokenId id = 0;
    std::string_view text;
    bool findable = true;  // Find sees it; texts of findable entries must differ
  };
  // kInvalidArgument naming the entry by its id: an id that is negative, taken, or far beyond the
  // number of entries (holes are fine, but memory is bounded by the entries, not by the largest
  // id), or a text that stands twice.
  static Result<Vocabulary> Build(const std::vector<Entry>& entries);

  uint32_t size() const { return static_cast<uint32_t>(spans_.size()); }  // largest id + 1
  // "" for unknown ids and holes.
  std::string_view Text(TokenId id) const {
    if (id < 0 || static_cast<size_t>(id) >= spans_.size()) return {};
    const Span& span = spans_[static_cast<size_t>(id)];
    return std::string_view(bytes_).substr(span.begin, span.length);
  }
  std::optional<TokenId> Find(std::string_view text) const;

 private:
  struct Span {
    uint64_t begin = 0;
    uint32_t length = 0;
  };
  size_t FirstSlot(std::string_view text) const;

  std::string bytes_;
  std::vector<Span> spans_;
  std::vector<TokenId> slots_;  // open addressing, -1 = free; size is a power of two
};

}  // namespace muselet
