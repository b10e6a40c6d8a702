#include "scheduler/batch/block_pool.h"

#include <gtest/gtest.h>

#include "scheduler/batch/prefix_cache.h"

namespace muselet {
namespace {

TEST(BlockPool, GivesEveryBlockOnceThenNone) {
  BlockPool pool(3);
  EXPECT_EQ(pool.Allocate().block, 0U);
  EXPECT_EQ(pool.Allocate().block, 1U);
  EXPECT_EQ(pool.Allocate().block, 2U);
  EXPECT_EQ(pool.Allocate().block, kNoBlock);
  EXPECT_EQ(pool.available_count(), 0U);
  pool.Release(1);
  EXPECT_EQ(pool.Allocate().block, 1U);
}

TEST(BlockPool, ASharedBlockIsFreeWhenItsLastHolderLeaves) {
  BlockPool pool(1);
  const BlockId block = pool.Allocate().block;
  pool.AddReference(block);
  pool.Release(block);
  EXPECT_EQ(pool.held_count(), 1U);
  pool.Release(block);
  EXPECT_EQ(pool.held_count(), 0U);
}

TEST(BlockPool, EvictsTheKeptBlockThatWasReleasedFirst) {
  BlockPool pool(3);
  for (BlockId block = 0; block < 3; ++block) {
    pool.Allocate();
    pool.Keep(block);
  }
  pool.Release(2);
  pool.Release(0);
  pool.Release(1);
  pool.AddReference(2);  // used again: now the youngest
  pool.Release(2);
  const BlockPool::Allocation first = pool.Allocate();
  EXPECT_EQ(first.block, 0U);
  EXPECT_TRUE(first.evicted);
  EXPECT_EQ(pool.Allocate().block, 1U);
  EXPECT_EQ(pool.Allocate().block, 2U);
}

TEST(BlockPoolDeathTest, ReleasingOnceTooOftenEndsTheProcess) {
  BlockPool pool(1);
  EXPECT_DEATH(pool.Release(0), "released once too often");
}

std::vector<BlockHash> Keys(uint32_t count) {
  std::vector<BlockHash> keys;
  for (uint32_t i = 0; i < count; ++i) keys.push_back({1, i + 1});
  return keys;
}

TEST(PrefixCache, AHitIsTheLongestLengthAtWhichEveryGroupHoldsWhatItNeeds) {
  PrefixCache cache({16, {{8, 0}, {8, 16}}}, true);
  const auto keys = Keys(4);
  std::vector<BlockId> full;
  std::vector<BlockId> window;
  for (uint32_t i = 0; i < 4; ++i) {
    full.push_back(cache.Allocate(0));
    cache.Register(0, keys[i], full[i]);
    window.push_back(cache.Allocate(1));
    if (i != 3) cache.Register(1, keys[i], window[i]);
  }
  // The window group lacks block 3: length 3, of which it needs block 2 alone.
  const PrefixCache::Hit hit = cache.Find(keys);
  EXPECT_EQ(hit.block_count, 3U);
  EXPECT_EQ(hit.blocks[0], std::vector<BlockId>(full.begin(), full.begin() + 3));
  EXPECT_EQ(hit.blocks[1], (std::vector<BlockId>{kNoBlock, kNoBlock, window[2]}));
}

TEST(PrefixCache, AnEvictedBlockIsNotFoundAgain) {
  PrefixCache cache({16, {{1, 0}}}, true);
  const auto keys = Keys(1);
  const BlockId block = cache.Allocate(0);
  cache.Register(0, keys[0], block);
  cache.Release(0, block);
  EXPECT_EQ(cache.Find(keys).block_count, 1U);
  EXPECT_EQ(cache.Allocate(0), block);
  EXPECT_EQ(cache.Find(keys).block_count, 0U);
}

TEST(PrefixCache, TheFirstBlockOfANameKeepsIt) {
  PrefixCache cache({16, {{2, 0}}}, true);
  const auto keys = Keys(1);
  const BlockId first = cache.Allocate(0);
  const BlockId second = cache.Allocate(0);
  cache.Register(0, keys[0], first);
  cache.Register(0, keys[0], second);
  EXPECT_EQ(cache.Find(keys).blocks[0][0], first);
  cache.Release(0, second);
  EXPECT_EQ(cache.Allocate(0), second);  // it was free, not kept
  EXPECT_EQ(cache.Find(keys).block_count, 1U);
}

TEST(PrefixCache, SwitchedOffItFindsNothing) {
  PrefixCache cache({16, {{2, 0}}}, false);
  const auto keys = Keys(1);
  cache.Register(0, keys[0], cache.Allocate(0));
  EXPECT_EQ(cache.Find(keys).block_count, 0U);
}

}  // namespace
}  // namespace muselet
