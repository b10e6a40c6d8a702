// How often each token stands in a sequence, for the penalties. Derived from the tokens alone: it
// is rebuilt by replaying them, so a resumed sequence has the very counts of one that never
// stopped.
//
// Step thread only. Allocates when a new token id appears, within what Reset reserved.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/types.h"

namespace muselet {

class PenaltyCounts {
 public:
  struct Entry {
    TokenId id = 0;
    uint32_t in_answer = 0;  // 0: in the prompt only
  };

  // Forgets everything; reserves for `token_max` tokens.
  void Reset(size_t token_max);
  // Counts tokens [counted so far, tokens.size()). REQUIRES: the first part has not changed.
  void CatchUp(std::span<const TokenId> tokens, size_t prompt_count);
  // By ascending id.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  size_t counted_ = 0;
};

}  // namespace muselet
