// KV blocks found again by content: one BlockPool and one index from content hash to block for each
// KV group.
//
// A key is the chained hash (base/block_hash.h) at the end of a block, so it names all tokens up to
// there and the surface's salt. A block is indexed once its rows are computed; it stays in the
// index after its last holder has gone, until its memory is needed. Groups evict independently: a
// window group may have lost blocks that a full group still has, and the hit is the longest length
// at which every group holds what it needs. Step thread only.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/block_hash.h"
#include "scheduler/batch/block_pool.h"

namespace muselet {

// The memory of one KV group, and of all groups of a model.
struct KvPoolGroup {
  uint32_t block_count = 0;
  uint32_t window_tokens = 0;  // a row sees this many positions, its own included; 0 = all
};
struct KvPoolShape {
  uint32_t block_tokens = 16;
  std::vector<KvPoolGroup> groups;
};

// Which prefixes the first full group holds, for those who place requests.
struct PrefixChange {
  BlockHash key;
  bool held = false;  // from now on; else it is gone
};
struct PrefixChanges {
  bool whole = false;              // what was known before is void: `list` is all that is held
  std::vector<PrefixChange> list;  // oldest first
};

class PrefixCache {
 public:
  // Changes that are remembered until they are taken; after more of them everything is told anew.
  static constexpr size_t kChangesMax = 1 << 16;

  PrefixCache(const KvPoolShape& shape, bool enabled);

  // Blocks of the longest usable prefix of at most `keys.size()` blocks: entry [g][i] is group g's
  // block i, kNoBlock where a window has passed it by. Nothing is referenced yet.
  struct Hit {
    uint32_t block_count = 0;
    std::vector<std::vector<BlockId>> blocks;
  };
  Hit Find(std::span<const BlockHash> keys) const;

  // Group `group`'s block holds computed content named `key`. A no-op if another block has that
  // name already, or if the cache is off.
  void Register(uint32_t group, const BlockHash& key, BlockId block);

  // All content is lost. REQUIRES: no block is held.
  void Clear();

  // From now on changes are remembered. A model without a full group has none.
  void RecordChanges() { recording_ = full_group_ < group_count(); }
  // What changed since the last call, appended.
  void TakeChanges(PrefixChanges* changes);

  // A block of the group with one reference, kNoBlock if all are held.
  BlockId Allocate(uint32_t group);
  void AddReference(uint32_t group, BlockId block) { pools_[group].AddReference(block); }
  void Release(uint32_t group, BlockId block) { pools_[group].Release(block); }

  // First position that a row at `position` still reads in the group.
  uint32_t FirstNeededPosition(uint32_t group, uint32_t position) const;

  // Blocks of the group that one sequence holds at most, whatever its length, when it is computed
  // in chunks of `chunk_max` rows; all ones for a full group.
  uint32_t BlocksInUseMax(uint32_t group, uint32_t chunk_max) const;

  bool enabled() const { return enabled_; }
  const KvPoolShape& shape() const { return shape_; }
  uint32_t group_count() const { return static_cast<uint32_t>(pools_.size()); }
  const BlockPool& pool(uint32_t group) const { return pools_[group]; }
  uint64_t held_count() const;   // over all groups
  uint64_t block_count() const;  // over all groups

 private:
  bool Holds(uint32_t group, std::span<const BlockHash> keys, uint32_t block_count) const;
  void Note(uint32_t group, const BlockHash& key, bool held);

  KvPoolShape shape_;
  bool enabled_;
  std::vector<BlockPool> pools_;
  std::vector<std::unordered_map<BlockHash, BlockId>> index_;  // [group]
  std::vector<std::vector<BlockHash>> key_of_block_;           // [group][block], while indexed
  uint32_t full_group_ = 0;  // the first one; group_count() if there is none
  bool recording_ = false;
  bool all_changed_ = false;
  std::vector<PrefixChange> changes_;
};

}  // namespace muselet
