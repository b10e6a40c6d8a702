#include "base/block_hash.h"

#include <xxhash.h>

#include <array>
#include <cstring>

#include "base/check.h"

namespace muselet {

BlockHash ChainBlockHash(const BlockHash& parent, uint64_t salt, std::span<const TokenId> tokens) {
  CHECK(tokens.size() == kHashBlockTokens, "a hash block has ", kHashBlockTokens, " tokens");
  std::array<std::byte, sizeof(BlockHash) + kHashBlockTokens * sizeof(TokenId)> bytes;
  std::memcpy(bytes.data(), &parent, sizeof(parent));
  std::memcpy(bytes.data() + sizeof(parent), tokens.data(), tokens.size_bytes());
  const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data(), bytes.size(), salt);
  return {hash.high64, hash.low64};
}

std::vector<BlockHash> HashBlocks(uint64_t salt, std::span<const TokenId> tokens) {
  std::vector<BlockHash> hashes;
  hashes.reserve(tokens.size() / kHashBlockTokens);
  BlockHash parent;
  for (size_t begin = 0; begin + kHashBlockTokens <= tokens.size(); begin += kHashBlockTokens) {
    parent = ChainBlockHash(parent, salt, tokens.subspan(begin, kHashBlockTokens));
    hashes.push_back(parent);
  }
  return hashes;
}

}  // namespace muselet
