#include "scheduler/batch/prefix_cache.h"

#include <algorithm>

#include "base/check.h"

namespace muselet {

PrefixCache::PrefixCache(const KvPoolShape& shape, bool enabled)
    : shape_(shape), enabled_(enabled) {
  for (const KvPoolGroup& group : shape.groups) {
    pools_.emplace_back(group.block_count);
    index_.emplace_back();
    key_of_block_.emplace_back(group.block_count);
  }
  while (full_group_ < shape.groups.size() && shape.groups[full_group_].window_tokens != 0) {
    ++full_group_;
  }
}

uint32_t PrefixCache::FirstNeededPosition(uint32_t group, uint32_t position) const {
  const uint32_t window = shape_.groups[group].window_tokens;
  return window == 0 || position + 1 <= window ? 0 : position + 1 - window;
}

uint32_t PrefixCache::BlocksInUseMax(uint32_t group, uint32_t chunk_max) const {
  const uint32_t window = shape_.groups[group].window_tokens;
  if (window == 0) return ~0U;
  return (window + chunk_max + shape_.block_tokens - 1) / shape_.block_tokens + 1;
}

bool PrefixCache::Holds(uint32_t group, std::span<const BlockHash> keys,
                        uint32_t block_count) const {
  const uint32_t position = block_count * shape_.block_tokens;
  const uint32_t first = FirstNeededPosition(group, position) / shape_.block_tokens;
  for (uint32_t i = block_count; i-- > first;) {
    if (!index_[group].contains(keys[i])) return false;
  }
  return true;
}

PrefixCache::Hit PrefixCache::Find(std::span<const BlockHash> keys) const {
  Hit hit;
  hit.blocks.resize(pools_.size());
  if (!enabled_) return hit;
  auto length = static_cast<uint32_t>(keys.size());
  // A full group bounds the length by its first gap; below that only windows can have holes.
  for (uint32_t group = 0; group < group_count(); ++group) {
    if (shape_.groups[group].window_tokens != 0) continue;
    uint32_t held = 0;
    while (held < length && index_[group].contains(keys[held])) ++held;
    length = held;
  }
  const auto all_hold = [&](uint32_t candidate) {
    for (uint32_t group = 0; group < group_count(); ++group) {
      if (!Holds(group, keys, candidate)) return false;
    }
    return true;
  };
  while (length > 0 && !all_hold(length)) --length;
  hit.block_count = length;
  for (uint32_t group = 0; group < group_count(); ++group) {
    const uint32_t first =
        FirstNeededPosition(group, length * shape_.block_tokens) / shape_.block_tokens;
    hit.blocks[group].assign(length, kNoBlock);
    for (uint32_t i = std::min(first, length); i < length; ++i) {
      hit.blocks[group][i] = index_[group].at(keys[i]);
    }
  }
  return hit;
}

void PrefixCache::Register(uint32_t group, const BlockHash& key, BlockId block) {
  if (!enabled_ || !index_[group].emplace(key, block).second) return;
  key_of_block_[group][block] = key;
  pools_[group].Keep(block);
  Note(group, key, true);
}

void PrefixCache::Note(uint32_t group, const BlockHash& key, bool held) {
  if (!recording_ || group != full_group_ || all_changed_) return;
  if (changes_.size() < kChangesMax) {
    changes_.push_back({key, held});
  } else {
    changes_.clear();
    all_changed_ = true;
  }
}

void PrefixCache::TakeChanges(PrefixChanges* changes) {
  if (all_changed_) {
    all_changed_ = false;
    changes->whole = true;
    changes->list.clear();
    changes->list.reserve(index_[full_group_].size());
    for (const auto& [key, block] : index_[full_group_]) changes->list.push_back({key, true});
  } else {
    changes->list.insert(changes->list.end(), changes_.begin(), changes_.end());
  }
  changes_.clear();
}

void PrefixCache::Clear() {
  for (uint32_t group = 0; group < group_count(); ++group) {
    CHECK(pools_[group].held_count() == 0, "the prefix cache is cleared while blocks are held");
    pools_[group] = BlockPool(pools_[group].block_count());
    index_[group].clear();
  }
  changes_.clear();
  all_changed_ = recording_;
}

BlockId PrefixCache::Allocate(uint32_t group) {
  const BlockPool::Allocation allocation = pools_[group].Allocate();
  if (allocation.evicted) {
    const BlockHash& key = key_of_block_[group][allocation.block];
    index_[group].erase(key);
    Note(group, key, false);
  }
  return allocation.block;
}

uint64_t PrefixCache::held_count() const {
  uint64_t count = 0;
  for (const BlockPool& pool : pools_) count += pool.held_count();
  return count;
}

uint64_t PrefixCache::block_count() const {
  uint64_t count = 0;
  for (const BlockPool& pool : pools_) count += pool.block_count();
  return count;
}

}  // namespace muselet
