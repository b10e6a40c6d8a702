// Which replica has which prefix in its KV cache, as their nodes' CacheEvents say: the scheduler's
// map from block hashes (base/block_hash.h, chained: one hash names all tokens up to there) to
// replicas. A hint, never a promise. Bounded: when it is full, blocks that nobody looked for lately
// make room.
//
// About 16 to 24 bytes a block that one replica holds, less for each further one. A replica that
// goes is forgotten at once by Find; its memory comes back by Sweep, in small steps. No step takes
// longer than some tens of microseconds. One owner.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/block_hash.h"
#include "scheduler/route/holder_sets.h"

namespace muselet {

class PrefixIndex {
 public:
  using Holder = HolderSets::Holder;
  static constexpr Holder kNoHolder = 0xFFFF;

  // `blocks_max`: of all replicas together.
  explicit PrefixIndex(uint64_t blocks_max);

  // A number for a replica; kNoHolder if there are 65,535 already: such a one is not indexed.
  Holder AddHolder();
  void DropHolder(Holder holder);

  void Add(Holder holder, std::span<const BlockHash> hashes);
  void Remove(Holder holder, std::span<const BlockHash> hashes);

  struct Match {
    Holder holder = kNoHolder;
    uint32_t blocks = 0;  // of the prompt's first, >= 1
    friend bool operator==(const Match&, const Match&) = default;
  };
  // Who holds how much of the prompt, the longest first; who holds nothing is left out. Takes a
  // holder of a block for one of all blocks before it (caches evict tails first), so that a prompt
  // of n blocks takes about log n looks for each length that occurs, and never more than
  // kLooksMax: beyond, lengths are underestimated.
  static constexpr int kLooksMax = 192;
  void Find(std::span<const BlockHash> hashes, std::vector<Match>* matches);

  // Forgets what replicas that are gone held, in a part of the index. A no-op if none is gone.
  void Sweep();

  // (block, replica) pairs of living replicas.
  uint64_t block_count() const { return block_count_; }
  uint64_t CountOf(Holder holder) const;
  uint64_t MemoryBytes() const;

 private:
  // Open addressing with linear probing; a set of kEmpty is a free place.
  struct Slot {
    uint32_t key_high = 0;
    uint32_t key_low = 0;
    uint32_t set = 0;  // HolderSets::SetId, and kLookedFor
    uint64_t key() const { return (uint64_t{key_high} << 32) | key_low; }
  };
  struct Table {
    std::vector<Slot> slots;
    size_t used = 0;
    size_t hand = 0;  // of the search for what may go
  };
  struct HolderState {
    enum class Kind : uint8_t { kFree, kAlive, kGone };
    Kind kind = Kind::kFree;
    uint64_t blocks = 0;
    uint32_t unswept = 0;  // tables, of a gone one
  };
  static constexpr uint32_t kLookedFor = 1U << 31;
  static constexpr size_t kTables = 1024;

  static uint64_t Mix(const BlockHash& hash);
  static size_t HomeOf(const Table& table, uint64_t key);
  static size_t Next(const Table& table, size_t place) {
    return place + 1 == table.slots.size() ? 0 : place + 1;
  }
  // The key's place, or the free one where it would stand. REQUIRES: the table has a free place.
  static size_t PlaceOf(const Table& table, uint64_t key);
  static void Grow(Table& table);
  static void Erase(Table& table, size_t place);
  void AddOne(Holder holder, uint64_t key);
  void RemoveOne(Holder holder, uint64_t key);
  void Prefetch(uint64_t key) const;
  HolderSets::SetId Look(const BlockHash& hash);
  void MakeRoom(Table& table);
  void CountGone(HolderSets::SetId set);

  const uint64_t blocks_max_;
  std::vector<Table> tables_;
  HolderSets sets_;
  std::vector<HolderState> holders_;
  uint64_t block_count_ = 0;
  uint32_t gone_ = 0;
  size_t next_swept_ = 0;
  std::vector<Holder> members_;
  std::vector<Holder> others_;
};

}  // namespace muselet
