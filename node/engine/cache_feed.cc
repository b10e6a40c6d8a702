#include "node/engine/cache_feed.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace muselet {

CacheFeed::CacheFeed(std::string replica, uint64_t epoch)
    : replica_(std::move(replica)), epoch_(epoch) {}

size_t CacheFeed::AddReader() {
  readers_.emplace_back();
  return readers_.size() - 1;
}

void CacheFeed::Begin(size_t reader) {
  Reader& it = readers_[reader];
  it.joined = it.snapshot = true;
  it.sent = 0;
  it.pending.clear();
  it.pending.reserve(held_.size());
  for (const BlockHash& key : held_) it.pending.push_back({key, true});
}

void CacheFeed::End(size_t reader) {
  readers_[reader].joined = false;
  readers_[reader].pending.clear();
  readers_[reader].sent = 0;
}

void CacheFeed::Apply(const PrefixChanges& changes) {
  if (changes.whole) held_.clear();
  for (const PrefixChange& change : changes.list) {
    if (change.held) {
      held_.insert(change.key);
    } else {
      held_.erase(change.key);
    }
  }
  for (size_t i = 0; i < readers_.size(); ++i) {
    Reader& reader = readers_[i];
    if (!reader.joined) continue;
    // One that does not keep up is better told everything than everything that ever happened.
    const size_t most = std::max(2 * held_.size(), 4 * kHashesMax);
    if (changes.whole || reader.pending.size() - reader.sent + changes.list.size() > most) {
      Begin(i);
    } else {
      reader.pending.insert(reader.pending.end(), changes.list.begin(), changes.list.end());
    }
  }
}

std::optional<CacheEvents> CacheFeed::Next(size_t reader) const {
  const Reader& it = readers_[reader];
  if (!it.joined || (!it.snapshot && it.sent == it.pending.size())) return std::nullopt;
  CacheEvents events;
  events.replica = replica_;
  events.epoch = epoch_;
  events.sequence = it.sequence + 1;
  events.snapshot = it.snapshot;
  const size_t end = std::min(it.sent + kHashesMax, it.pending.size());
  // A message says of a key only what became of it in the end, so that its order does not matter.
  std::unordered_map<BlockHash, size_t> last;
  for (size_t i = it.sent; i < end; ++i) last[it.pending[i].key] = i;
  for (size_t i = it.sent; i < end; ++i) {
    const PrefixChange& change = it.pending[i];
    if (last[change.key] == i) (change.held ? events.added : events.removed).push_back(change.key);
  }
  return events;
}

void CacheFeed::Sent(size_t reader) {
  Reader& it = readers_[reader];
  ++it.sequence;
  it.snapshot = false;
  it.sent = std::min(it.sent + kHashesMax, it.pending.size());
  ForgetSent(it);
}

void CacheFeed::ForgetSent(Reader& reader) {
  if (reader.sent < reader.pending.size() && reader.sent < 4 * kHashesMax) return;
  reader.pending.erase(reader.pending.begin(),
                       reader.pending.begin() + static_cast<std::ptrdiff_t>(reader.sent));
  reader.sent = 0;
}

}  // namespace muselet
