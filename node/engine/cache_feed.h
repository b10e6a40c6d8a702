// Tells schedulers what a replica's prefix cache holds: all of it first, then what changes, in
// messages of bounded size. Sans-I/O; one owner, no locks.
//
// Keeps a copy of what is held, so that a scheduler that joins late costs the step loop nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/messages.h"
#include "scheduler/batch/prefix_cache.h"

namespace muselet {

class CacheFeed {
 public:
  static constexpr size_t kHashesMax = 16'384;  // of one message

  CacheFeed(std::string replica, uint64_t epoch);

  // Changes come in order; a key that is held already, or is not, may be told again.
  void Apply(const PrefixChanges& changes);

  // A scheduler, by the number that AddReader gave it.
  size_t AddReader();
  // It joined: it is told everything, whatever it was told before.
  void Begin(size_t reader);
  // It is gone: nothing is kept for it until it joins again.
  void End(size_t reader);
  // The next message for it, the same until Sent is called; none: it knows everything.
  std::optional<CacheEvents> Next(size_t reader) const;
  void Sent(size_t reader);

  size_t held_count() const { return held_.size(); }

 private:
  struct Reader {
    bool joined = false;
    bool snapshot = false;              // the next message begins one
    uint64_t sequence = 0;              // of the last message
    std::vector<PrefixChange> pending;  // oldest first
    size_t sent = 0;                    // leading ones that were sent
  };
  void ForgetSent(Reader& reader);

  const std::string replica_;
  const uint64_t epoch_;
  std::unordered_set<BlockHash> held_;
  std::vector<Reader> readers_;
};

}  // namespace muselet
