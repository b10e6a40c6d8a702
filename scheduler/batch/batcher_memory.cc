// Batcher: slots and blocks. Who gets them, who has to give them back.
#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

uint32_t CeilDiv(uint32_t value, uint32_t divisor) {
  return (value + divisor - 1) / divisor;
}

}  // namespace

bool Batcher::Cheaper(const Sequence& a, const Sequence& b) {
  return std::tuple(a.record.request_class, a.serial) >
         std::tuple(b.record.request_class, b.serial);
}

bool Batcher::Protected(const Sequence& sequence, RequestClass from) {
  const bool gives_way =
      sequence.record.request_class == RequestClass::kBatch && from != RequestClass::kBatch;
  return !gives_way && sequence.token_count() < sequence.protected_until;
}

Sequence* Batcher::CheapestRunning(std::optional<RequestClass> unprotected_from) const {
  Sequence* cheapest = nullptr;
  for (Sequence* sequence : slots_) {
    if (sequence == nullptr || sequence->state != SequenceState::kRunning) continue;
    if (unprotected_from && Protected(*sequence, *unprotected_from)) continue;
    if (cheapest == nullptr || Cheaper(*sequence, *cheapest)) cheapest = sequence;
  }
  return cheapest;
}

bool Batcher::AnyLeaving() const {
  return std::any_of(slots_.begin(), slots_.end(), [](const Sequence* sequence) {
    return sequence != nullptr && sequence->state == SequenceState::kLeaving;
  });
}

// Positions whose blocks a sequence takes when it starts: its known tokens, and after a pause also
// the progress that it is promised.
uint32_t Batcher::PositionsAtStart(const Sequence& sequence) const {
  const uint32_t known = sequence.token_count();
  if (sequence.pauses == 0) return known;
  const uint64_t promised = uint64_t{known} + options_.resume_tokens_min;
  return static_cast<uint32_t>(
      std::max<uint64_t>(known, std::min<uint64_t>(promised, sequence.token_limit) - 1));
}

// Blocks that must be available in each group: new ones, cached ones that nobody holds, and one for
// each running sequence to grow into.
std::vector<uint32_t> Batcher::BlocksToStart(const Sequence& sequence,
                                             const PrefixCache::Hit& hit) const {
  const uint32_t all = CeilDiv(PositionsAtStart(sequence), model_.kv.block_tokens);
  std::vector<uint32_t> needed;
  for (uint32_t group = 0; group < cache_.group_count(); ++group) {
    uint32_t shared = 0;
    uint32_t unheld = 0;
    for (const BlockId block : hit.blocks[group]) {
      if (block == kNoBlock) continue;
      ++shared;
      if (cache_.pool(group).references(block) == 0) ++unheld;
    }
    const uint32_t passed = hit.block_count - shared;
    const uint32_t held =
        std::min(all - passed, cache_.BlocksInUseMax(group, options_.prefill_chunk_max));
    const uint32_t spare = std::min(running_count_, cache_.pool(group).block_count() / 8);
    needed.push_back(held - std::min(held, shared) + unheld + spare);
  }
  return needed;
}

bool Batcher::HasRoom(const std::vector<uint32_t>& blocks_needed) const {
  if (free_slots_.empty()) return false;
  for (uint32_t group = 0; group < cache_.group_count(); ++group) {
    if (cache_.pool(group).available_count() < blocks_needed[group]) return false;
  }
  return true;
}

// Pauses the cheapest sequences of lower classes, if that can make the room.
void Batcher::PauseLowerClasses(const Sequence& sequence,
                                const std::vector<uint32_t>& blocks_needed) {
  // What pausing gives back, shared blocks counted as if they were not: an upper bound.
  std::vector<Sequence*> victims;
  uint32_t slots = static_cast<uint32_t>(free_slots_.size());
  std::vector<uint64_t> blocks;
  for (uint32_t group = 0; group < cache_.group_count(); ++group) {
    blocks.push_back(cache_.pool(group).available_count());
  }
  const auto count = [&](const Sequence& leaver) {
    ++slots;
    for (uint32_t group = 0; group < cache_.group_count(); ++group) {
      blocks[group] += leaver.tables[group].size() - leaver.passed[group];
    }
  };
  const auto enough = [&] {
    bool result = slots > 0;
    for (size_t group = 0; group < blocks.size(); ++group) {
      result = result && blocks[group] >= blocks_needed[group];
    }
    return result;
  };
  for (Sequence* other : slots_) {
    if (other == nullptr) continue;
    if (other->state == SequenceState::kLeaving) {
      count(*other);
    } else if (other->record.request_class > sequence.record.request_class &&
               !Protected(*other, sequence.record.request_class)) {
      victims.push_back(other);
    }
  }
  std::sort(victims.begin(), victims.end(),
            [](const Sequence* a, const Sequence* b) { return Cheaper(*a, *b); });
  size_t chosen = 0;
  while (!enough() && chosen < victims.size()) count(*victims[chosen++]);
  if (!enough()) return;
  for (size_t i = 0; i < chosen; ++i) Pause(*victims[i]);
}

// A running sequence computes the very blocks that this one needs next.
bool Batcher::MustWaitForPrefix(const Sequence& sequence, const PrefixCache::Hit& hit,
                                const std::vector<BlockHash>& keys) const {
  if (hit.block_count >= keys.size()) return false;
  const auto found = computing_.find(keys[hit.block_count]);
  return found != computing_.end() &&
         found->second->record.request_class <= sequence.record.request_class;
}

Batcher::StartResult Batcher::TryStart(Sequence& sequence) {
  ExtendHashes(sequence);
  // The last token is always computed: its logits are wanted. With prompt logprobs all rows are.
  const uint32_t usable =
      sequence.wants_prompt_logprobs() ? 0 : (sequence.token_count() - 1) / model_.kv.block_tokens;
  const std::vector<BlockHash> keys = Keys(sequence, usable);
  const PrefixCache::Hit hit = cache_.Find(keys);
  if (MustWaitForPrefix(sequence, hit, keys)) return StartResult::kDeferred;
  if (const auto needed = BlocksToStart(sequence, hit); !HasRoom(needed)) {
    PauseLowerClasses(sequence, needed);
  }
  // Again, because a pause frees shared blocks.
  if (!HasRoom(BlocksToStart(sequence, hit))) return StartResult::kNoRoom;
  Start(sequence, hit);
  return StartResult::kStarted;
}

void Batcher::Start(Sequence& sequence, const PrefixCache::Hit& hit) {
  waiting_.erase(sequence.serial);
  sequence.state = SequenceState::kRunning;
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[sequence.slot] = &sequence;
  ++running_count_;
  sequence.run = next_run_++;
  sequence.prefill_end = sequence.token_count();
  sequence.planned = sequence.computed = hit.block_count * model_.kv.block_tokens;
  sequence.blocks_registered = hit.block_count;
  sequence.tables = hit.blocks;
  sequence.passed.assign(cache_.group_count(), 0);
  for (uint32_t group = 0; group < cache_.group_count(); ++group) {
    for (const BlockId block : hit.blocks[group]) {
      if (block == kNoBlock) {
        ++sequence.passed[group];
      } else {
        cache_.AddReference(group, block);
      }
    }
  }
  const bool allocated = AllocateUpTo(sequence, PositionsAtStart(sequence), Groups::kFullOnly);
  CHECK(allocated, "a sequence started without room for its blocks");
  if (sequence.pauses > 0) {
    sequence.protected_until = sequence.token_count() + options_.resume_tokens_min;
  } else if (!sequence.starts_again) {
    sequence.cached_prompt_tokens = std::min(sequence.planned, sequence.prompt_count);
    counters_.prefix_query_tokens += sequence.token_count();
    counters_.prefix_hit_tokens += sequence.planned;
    sequence.share->Charge(sequence.token_count() - sequence.planned);
  }
  SetComputing(sequence, true);
}

bool Batcher::AllocateUpTo(Sequence& sequence, uint32_t position_count, Groups groups) {
  const uint32_t block_count = CeilDiv(position_count, model_.kv.block_tokens);
  for (uint32_t group = 0; group < cache_.group_count(); ++group) {
    if (groups == Groups::kFullOnly && model_.kv.groups[group].window_tokens != 0) continue;
    std::vector<BlockId>& table = sequence.tables[group];
    while (table.size() < block_count) {
      const BlockId block = cache_.Allocate(group);
      if (block == kNoBlock) return false;
      table.push_back(block);
    }
  }
  return true;
}

// Blocks for `position_count` positions, taken from cheaper sequences if need be. False: not now;
// the sequence waits, or was itself the cheapest and is paused.
bool Batcher::Grow(Sequence& sequence, uint32_t position_count) {
  while (!AllocateUpTo(sequence, position_count, Groups::kAll)) {
    if (AnyLeaving()) return false;  // their blocks come back when their plans commit
    Sequence* victim = CheapestRunning(sequence.record.request_class);
    const bool self_is_cheapest = CheapestRunning(std::nullopt) == &sequence;
    if (victim == nullptr) return false;
    if (victim == &sequence) {
      // With a protected one that is cheaper it is better to stand still than to lose the work.
      if (self_is_cheapest && running_count_ > 1) Pause(sequence);
      return false;
    }
    if (!Cheaper(*victim, sequence)) return false;
    Pause(*victim);
  }
  return true;
}

void Batcher::Pause(Sequence& sequence) {
  ++sequence.pauses;
  sequence.paused_in_draft = drafts_;
  ++counters_.pauses;
  sequence.state = SequenceState::kLeaving;
  SetComputing(sequence, false);
  SettleLeaving(sequence);
}

void Batcher::LeaveSlot(Sequence& sequence) {
  for (uint32_t group = 0; group < cache_.group_count(); ++group) {
    // Last block first: the cache then loses the end of a prefix before its beginning.
    std::vector<BlockId>& table = sequence.tables[group];
    for (; !table.empty(); table.pop_back()) {
      if (table.back() != kNoBlock) cache_.Release(group, table.back());
    }
  }
  slots_[sequence.slot] = nullptr;
  free_slots_.push_back(sequence.slot);
  --running_count_;
}

void Batcher::ReturnToWaiting(Sequence& sequence) {
  CHECK(sequence.tokens_pending == 0, "a sequence left its slot with a token outstanding");
  sequence.state = SequenceState::kWaiting;
  waiting_.emplace(sequence.serial, &sequence);
}

void Batcher::Erase(Sequence& sequence) {
  fair_share(sequence.record.request_class).Leave(sequence.record.surface);
  waiting_.erase(sequence.serial);
  sequences_.erase(sequence.serial);
}

void Batcher::ExtendHashes(Sequence& sequence) {
  if (!cache_.enabled()) return;
  const std::span<const TokenId> tokens = sequence.tokens;
  for (size_t begin = sequence.hashes.size() * kHashBlockTokens;
       begin + kHashBlockTokens <= tokens.size(); begin += kHashBlockTokens) {
    const BlockHash parent = sequence.hashes.empty() ? BlockHash{} : sequence.hashes.back();
    sequence.hashes.push_back(ChainBlockHash(parent, sequence.record.cache_salt,
                                             tokens.subspan(begin, kHashBlockTokens)));
  }
}

std::vector<BlockHash> Batcher::Keys(const Sequence& sequence, uint32_t block_count) const {
  std::vector<BlockHash> keys;
  if (!cache_.enabled()) return keys;
  const uint32_t hashes_per_block = model_.kv.block_tokens / kHashBlockTokens;
  for (uint32_t i = 1; i <= block_count; ++i)
    keys.push_back(sequence.hashes[i * hashes_per_block - 1]);
  return keys;
}

void Batcher::RegisterBlocks(Sequence& sequence) {
  if (!cache_.enabled()) return;
  const uint32_t full = sequence.computed / model_.kv.block_tokens;
  if (full <= sequence.blocks_registered) return;
  ExtendHashes(sequence);
  const uint32_t hashes_per_block = model_.kv.block_tokens / kHashBlockTokens;
  for (uint32_t i = sequence.blocks_registered; i < full; ++i) {
    const BlockHash& key = sequence.hashes[(i + 1) * hashes_per_block - 1];
    for (uint32_t group = 0; group < cache_.group_count(); ++group) {
      const BlockId block = sequence.tables[group][i];
      if (block != kNoBlock) cache_.Register(group, key, block);
    }
    const auto found = computing_.find(key);
    if (found != computing_.end() && found->second == &sequence) computing_.erase(found);
  }
  sequence.blocks_registered = full;
}

void Batcher::SetComputing(const Sequence& sequence, bool computing) {
  if (!cache_.enabled()) return;
  const uint32_t hashes_per_block = model_.kv.block_tokens / kHashBlockTokens;
  const uint32_t full = sequence.prefill_end / model_.kv.block_tokens;
  for (uint32_t i = sequence.blocks_registered; i < full; ++i) {
    const BlockHash& key = sequence.hashes[(i + 1) * hashes_per_block - 1];
    if (computing) {
      computing_.emplace(key, &sequence);
    } else if (const auto found = computing_.find(key);
               found != computing_.end() && found->second == &sequence) {
      computing_.erase(found);
    }
  }
}

bool Batcher::BlocksAddUp() const {
  for (uint32_t group = 0; group < cache_.group_count(); ++group) {
    const BlockPool& pool = cache_.pool(group);
    std::vector<uint32_t> named(pool.block_count());
    for (const Sequence* sequence : slots_) {
      if (sequence == nullptr) continue;
      for (const BlockId block : sequence->tables[group]) {
        if (block != kNoBlock) ++named[block];
      }
    }
    uint32_t held = 0;
    for (BlockId block = 0; block < pool.block_count(); ++block) {
      if (pool.references(block) != named[block]) return false;
      if (named[block] > 0) ++held;
    }
    if (pool.held_count() != held) return false;
  }
  return true;
}

void Batcher::ReleasePassedBlocks(Sequence& sequence) {
  for (uint32_t group = 0; group < cache_.group_count(); ++group) {
    if (model_.kv.groups[group].window_tokens == 0) continue;
    const uint32_t first = cache_.FirstNeededPosition(group, sequence.computed);
    std::vector<BlockId>& table = sequence.tables[group];
    uint32_t& passed = sequence.passed[group];
    for (; passed < first / model_.kv.block_tokens; ++passed) {
      cache_.Release(group, table[passed]);
      table[passed] = kNoBlock;
    }
  }
}

}  // namespace muselet
