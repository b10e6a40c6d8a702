// Byte-pair merging of one word: while any neighbouring pair is in the merge table, the pair of
// lowest rank (leftmost among equals) becomes one symbol (Sennrich et al. 2016). O(n log n) in the
// word's length.
//
// Immutable after building; any thread may call Merge.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.h"

namespace muselet {

class BpeMerges {
 public:
  struct Merge {
    TokenId left, right, merged;
  };
  // In order of rank. Of equal pairs the last one counts, as in Hugging Face's.
  explicit BpeMerges(const std::vector<Merge>& merges);

  // Replaces `symbols` by what is left after merging. Adds the number of table look-ups and queue
  // operations to *steps if it is not null: tests bound the cost by it.
  void Apply(std::vector<TokenId>& symbols, uint64_t* steps = nullptr) const;

 private:
  struct Slot {
    TokenId left = -1;  // -1 = free
    TokenId right = -1;
    uint32_t rank = 0;
    TokenId merged = -1;
  };
  const Slot* Find(TokenId left, TokenId right) const;
  Slot& SlotFor(TokenId left, TokenId right);
  size_t FirstSlot(TokenId left, TokenId right) const;
  void ApplyShort(std::vector<TokenId>& symbols, uint64_t& steps) const;
  void ApplyLong(std::vector<TokenId>& symbols, uint64_t& steps) const;

  std::vector<Slot> slots_;  // open addressing; size is a power of two
};

}  // namespace muselet
