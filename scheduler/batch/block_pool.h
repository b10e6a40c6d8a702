// The physical KV blocks of one KV group: which are free, who shares the others.
//
// A block is free (no content), held (reference count >= 1) or kept (count 0, content still good,
// can be evicted). Kept blocks are evicted least recently used first. Knows nothing of tokens or
// hashes: scheduler/batch/prefix_cache decides what is kept. Step thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.h"

namespace muselet {

inline constexpr BlockId kNoBlock = 0xFFFFFFFF;

class BlockPool {
 public:
  explicit BlockPool(uint32_t block_count);

  struct Allocation {
    BlockId block = kNoBlock;  // kNoBlock: every block is held
    bool evicted = false;      // it was kept until now: its old content is gone
  };
  // A block with reference count 1: a free one, else the least recently used kept one.
  Allocation Allocate();

  // One more holder. REQUIRES: the block is held or kept.
  void AddReference(BlockId block);
  // One holder less. The last one makes the block free, or kept if `Keep` was called on it.
  void Release(BlockId block);
  // The block's content is worth keeping after its last release, until Allocate evicts it.
  // REQUIRES: held.
  void Keep(BlockId block);

  uint32_t block_count() const { return static_cast<uint32_t>(blocks_.size()) - 1; }
  uint32_t held_count() const { return held_count_; }
  // Allocate succeeds this many times in a row.
  uint32_t available_count() const { return block_count() - held_count_; }
  uint32_t references(BlockId block) const { return blocks_[block].references; }

 private:
  struct Block {
    uint32_t references = 0;
    bool keep = false;
    BlockId previous = kNoBlock;  // neighbours in the list of kept blocks, oldest first
    BlockId next = kNoBlock;
  };
  void Link(BlockId block);
  void Unlink(BlockId block);

  std::vector<Block> blocks_;  // the last one is the list's head
  std::vector<BlockId> free_;  // a stack
  uint32_t held_count_ = 0;
};

}  // namespace muselet
