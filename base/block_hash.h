// Content hashes of token blocks, chained, so that one hash names a whole prefix. Used by the
// prefix cache of a replica and by the scheduler that looks for the replica which has a prefix. 128
// bits of XXH3 with a secret salt a surface: equal text under two salts shares nothing, and a
// chosen collision needs the salt.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/types.h"

namespace muselet {

inline constexpr uint32_t kHashBlockTokens = 16;

struct BlockHash {
  uint64_t high = 0;
  uint64_t low = 0;
  friend auto operator<=>(const BlockHash&, const BlockHash&) = default;
};

// The hash of the block `tokens` that follows the prefix named by `parent` (BlockHash{} for the
// first block).
BlockHash ChainBlockHash(const BlockHash& parent, uint64_t salt, std::span<const TokenId> tokens);

// One hash for each full block of kHashBlockTokens tokens, in order; the incomplete tail has none.
std::vector<BlockHash> HashBlocks(uint64_t salt, std::span<const TokenId> tokens);

}  // namespace muselet

template <>
struct std::hash<muselet::BlockHash> {
  size_t operator()(const muselet::BlockHash& hash) const noexcept { return hash.low; }
};
