#include "scheduler/batch/block_pool.h"

#include "base/check.h"

namespace muselet {

BlockPool::BlockPool(uint32_t block_count) : blocks_(size_t{block_count} + 1) {
  free_.reserve(block_count);
  for (BlockId block = block_count; block-- > 0;) free_.push_back(block);
  blocks_[block_count].previous = blocks_[block_count].next = block_count;
}

BlockPool::Allocation BlockPool::Allocate() {
  Allocation result;
  if (!free_.empty()) {
    result.block = free_.back();
    free_.pop_back();
  } else if (const BlockId oldest = blocks_.back().next; oldest != block_count()) {
    Unlink(oldest);
    blocks_[oldest].keep = false;
    result = {oldest, true};
  } else {
    return result;
  }
  blocks_[result.block].references = 1;
  ++held_count_;
  return result;
}

void BlockPool::AddReference(BlockId block) {
  Block& entry = blocks_[block];
  if (entry.references == 0) {
    CHECK(entry.keep, "block ", block, " is free and has no content to share");
    Unlink(block);
    ++held_count_;
  }
  ++entry.references;
}

void BlockPool::Release(BlockId block) {
  Block& entry = blocks_[block];
  CHECK(entry.references > 0, "block ", block, " is released once too often");
  if (--entry.references > 0) return;
  --held_count_;
  if (entry.keep) {
    Link(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::Keep(BlockId block) {
  CHECK(blocks_[block].references > 0, "block ", block, " is kept without a holder");
  blocks_[block].keep = true;
}

void BlockPool::Link(BlockId block) {
  const BlockId head = block_count();
  Block& entry = blocks_[block];
  entry.previous = blocks_[head].previous;
  entry.next = head;
  blocks_[entry.previous].next = block;
  blocks_[head].previous = block;
}

void BlockPool::Unlink(BlockId block) {
  Block& entry = blocks_[block];
  blocks_[entry.previous].next = entry.next;
  blocks_[entry.next].previous = entry.previous;
  entry.previous = entry.next = kNoBlock;
}

}  // namespace muselet
