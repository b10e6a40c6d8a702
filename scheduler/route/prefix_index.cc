#include "scheduler/route/prefix_index.h"

#include <algorithm>
#include <array>

namespace muselet {
namespace {

constexpr size_t kFirstPlaces = 16;
constexpr size_t kAhead = 8;

}  // namespace

PrefixIndex::PrefixIndex(uint64_t blocks_max)
    : blocks_max_(std::max<uint64_t>(blocks_max, 1)), tables_(kTables) {}

uint64_t PrefixIndex::Mix(const BlockHash& hash) {
  uint64_t x = hash.low + 0x9E3779B97F4A7C15ULL * (hash.high + 1);
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ULL;
  return x ^ (x >> 32);
}

size_t PrefixIndex::HomeOf(const Table& table, uint64_t key) {
  // The table was chosen by the low bits.
  return static_cast<size_t>((static_cast<unsigned __int128>(key) * table.slots.size()) >> 64);
}

size_t PrefixIndex::PlaceOf(const Table& table, uint64_t key) {
  size_t place = HomeOf(table, key);
  while (table.slots[place].set != 0 && table.slots[place].key() != key) place = Next(table, place);
  return place;
}

void PrefixIndex::Grow(Table& table) {
  Table grown;
  const size_t places = std::max(kFirstPlaces, table.slots.size() * 3 / 2);
  grown.slots.resize(places);
  grown.used = table.used;
  for (const Slot& slot : table.slots)
    if (slot.set != 0) grown.slots[PlaceOf(grown, slot.key())] = slot;
  table = std::move(grown);
}

void PrefixIndex::Erase(Table& table, size_t place) {
  const size_t size = table.slots.size();
  const auto distance = [size](size_t from, size_t to) { return (to + size - from) % size; };
  --table.used;
  for (size_t next = Next(table, place); table.slots[next].set != 0; next = Next(table, next)) {
    // What stands behind its home by at least the gap may move into it.
    if (distance(HomeOf(table, table.slots[next].key()), next) < distance(place, next)) continue;
    table.slots[place] = table.slots[next];
    place = next;
  }
  table.slots[place].set = 0;
}

PrefixIndex::Holder PrefixIndex::AddHolder() {
  const auto free = std::find_if(holders_.begin(), holders_.end(), [](const HolderState& state) {
    return state.kind == HolderState::Kind::kFree;
  });
  const auto holder = static_cast<size_t>(free - holders_.begin());
  if (holder >= kNoHolder) return kNoHolder;
  if (free == holders_.end()) holders_.emplace_back();
  holders_[holder] = {HolderState::Kind::kAlive, 0, 0};
  return static_cast<Holder>(holder);
}

void PrefixIndex::DropHolder(Holder holder) {
  if (holder == kNoHolder) return;
  HolderState& state = holders_[holder];
  block_count_ -= state.blocks;
  if (state.blocks == 0) {
    state = {};
    return;
  }
  state = {HolderState::Kind::kGone, 0, kTables};
  ++gone_;
}

uint64_t PrefixIndex::CountOf(Holder holder) const {
  return holder == kNoHolder ? 0 : holders_[holder].blocks;
}

// The places are scattered over memory: they are fetched some time ahead.
void PrefixIndex::Prefetch(uint64_t key) const {
  const Table& table = tables_[key % kTables];
  if (!table.slots.empty()) __builtin_prefetch(&table.slots[HomeOf(table, key)]);
}

void PrefixIndex::Add(Holder holder, std::span<const BlockHash> hashes) {
  if (holder == kNoHolder) return;
  for (size_t i = 0; i < hashes.size(); ++i) {
    if (i + kAhead < hashes.size()) Prefetch(Mix(hashes[i + kAhead]));
    AddOne(holder, Mix(hashes[i]));
  }
}

void PrefixIndex::Remove(Holder holder, std::span<const BlockHash> hashes) {
  if (holder == kNoHolder) return;
  for (size_t i = 0; i < hashes.size(); ++i) {
    if (i + kAhead < hashes.size()) Prefetch(Mix(hashes[i + kAhead]));
    RemoveOne(holder, Mix(hashes[i]));
  }
}

void PrefixIndex::AddOne(Holder holder, uint64_t key) {
  Table& table = tables_[key % kTables];
  if (block_count_ >= blocks_max_) MakeRoom(table);
  if (block_count_ >= blocks_max_) return;  // this part of the index has nothing to give
  if ((table.used + 1) * 4 > table.slots.size() * 3) Grow(table);
  const size_t place = PlaceOf(table, key);
  const uint32_t before = table.slots[place].set;
  if (before == 0) ++table.used;
  const HolderSets::SetId old = before & ~kLookedFor;
  if (sets_.Contains(old, holder)) return;
  table.slots[place] = {static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(key),
                        sets_.With(old, holder) | (before & kLookedFor)};
  ++holders_[holder].blocks;
  ++block_count_;
}

void PrefixIndex::RemoveOne(Holder holder, uint64_t key) {
  Table& table = tables_[key % kTables];
  if (table.used == 0) return;
  const size_t place = PlaceOf(table, key);
  const uint32_t before = table.slots[place].set;
  const HolderSets::SetId set = before & ~kLookedFor;
  if (set == HolderSets::kEmpty || !sets_.Contains(set, holder)) return;
  const HolderSets::SetId left = sets_.Without(set, holder);
  if (left == HolderSets::kEmpty) {
    Erase(table, place);
  } else {
    table.slots[place].set = left | (before & kLookedFor);
  }
  --holders_[holder].blocks;
  --block_count_;
}

void PrefixIndex::CountGone(HolderSets::SetId set) {
  members_.clear();
  sets_.Members(set, &members_);
  for (const Holder member : members_) {
    if (holders_[member].kind != HolderState::Kind::kAlive) continue;
    --holders_[member].blocks;
    --block_count_;
  }
}

void PrefixIndex::MakeRoom(Table& table) {
  if (table.used == 0) return;
  // Twice around: the first round may do nothing but forget who was looked for.
  for (size_t looked = 0; looked < 2 * table.slots.size(); ++looked) {
    table.hand = table.hand + 1 >= table.slots.size() ? 0 : table.hand + 1;
    uint32_t& entry = table.slots[table.hand].set;
    if (entry == 0) continue;
    if ((entry & kLookedFor) != 0) {
      entry &= ~kLookedFor;
      continue;
    }
    CountGone(entry);
    sets_.Drop(entry);
    return Erase(table, table.hand);
  }
}

HolderSets::SetId PrefixIndex::Look(const BlockHash& hash) {
  const uint64_t key = Mix(hash);
  Table& table = tables_[key % kTables];
  if (table.used == 0) return HolderSets::kEmpty;
  uint32_t& entry = table.slots[PlaceOf(table, key)].set;
  if (entry == 0) return HolderSets::kEmpty;
  entry |= kLookedFor;
  return entry & ~kLookedFor;
}

void PrefixIndex::Find(std::span<const BlockHash> hashes, std::vector<Match>* matches) {
  matches->clear();
  if (hashes.empty()) return;
  const HolderSets::SetId first = Look(hashes[0]);
  if (first == HolderSets::kEmpty) return;
  // Holders of block `low` that do not hold block `high` end in between; right to left, so that the
  // longest come first.
  struct Span {
    size_t low, high;
    HolderSets::SetId at_low, at_high;
  };
  std::array<Span, 64> stack;
  size_t depth = 0;
  stack[depth++] = {0, hashes.size(), first, HolderSets::kEmpty};
  int looks = 1;
  while (depth > 0) {
    const Span span = stack[--depth];
    if (span.at_low == span.at_high) continue;
    if (span.high - span.low > 1 && looks < kLooksMax && depth + 2 <= stack.size()) {
      const size_t middle = span.low + (span.high - span.low) / 2;
      const HolderSets::SetId set = Look(hashes[middle]);
      ++looks;
      stack[depth++] = {span.low, middle, span.at_low, set};
      stack[depth++] = {middle, span.high, set, span.at_high};
      continue;
    }
    members_.clear();
    sets_.Members(span.at_low, &members_);
    for (const Holder member : members_) {
      if (sets_.Contains(span.at_high, member) || !sets_.Contains(first, member)) continue;
      if (holders_[member].kind != HolderState::Kind::kAlive) continue;
      const bool known = std::any_of(matches->begin(), matches->end(),
                                     [&](const Match& match) { return match.holder == member; });
      if (!known) matches->push_back({member, static_cast<uint32_t>(span.low + 1)});
    }
  }
}

void PrefixIndex::Sweep() {
  if (gone_ == 0) return;
  Table& table = tables_[next_swept_];
  next_swept_ = (next_swept_ + 1) % kTables;
  for (size_t place = 0; place < table.slots.size();) {
    const uint32_t entry = table.slots[place].set;
    HolderSets::SetId set = entry & ~kLookedFor;
    others_.clear();
    sets_.Members(set, &others_);
    for (const Holder member : others_)
      if (holders_[member].kind == HolderState::Kind::kGone) set = sets_.Without(set, member);
    if (entry != 0 && set == HolderSets::kEmpty) {
      Erase(table, place);  // another one may stand here now
      continue;
    }
    if (entry != 0) table.slots[place].set = set | (entry & kLookedFor);
    ++place;
  }
  for (HolderState& state : holders_) {
    if (state.kind != HolderState::Kind::kGone || --state.unswept > 0) continue;
    state = {};
    --gone_;
  }
}

uint64_t PrefixIndex::MemoryBytes() const {
  uint64_t bytes = sets_.MemoryBytes() + tables_.capacity() * sizeof(Table);
  for (const Table& table : tables_) bytes += table.slots.capacity() * sizeof(Slot);
  return bytes;
}

}  // namespace muselet
