#include "node/text/bpe_merges.h"

#include <array>
#include <bit>
#include <cstddef>
#include <limits>
#include <queue>

namespace muselet {
namespace {

// Up to this length looking at all pairs again after each merge beats a queue.
constexpr size_t kShortSymbols = 24;
constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();

}  // namespace

BpeMerges::BpeMerges(const std::vector<Merge>& merges)
    : slots_(std::bit_ceil(2 * merges.size() + 2)) {
  uint32_t rank = 0;
  for (const Merge& merge : merges) {
    SlotFor(merge.left, merge.right) = {merge.left, merge.right, rank++, merge.merged};
  }
}

size_t BpeMerges::FirstSlot(TokenId left, TokenId right) const {
  const uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  return (key * 0x9E3779B97F4A7C15ULL >> 32) & (slots_.size() - 1);
}

BpeMerges::Slot& BpeMerges::SlotFor(TokenId left, TokenId right) {
  size_t i = FirstSlot(left, right);
  while (slots_[i].left >= 0 && (slots_[i].left != left || slots_[i].right != right)) {
    i = (i + 1) & (slots_.size() - 1);
  }
  return slots_[i];
}

const BpeMerges::Slot* BpeMerges::Find(TokenId left, TokenId right) const {
  for (size_t i = FirstSlot(left, right); slots_[i].left >= 0; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].left == left && slots_[i].right == right) return &slots_[i];
  }
  return nullptr;
}

void BpeMerges::Apply(std::vector<TokenId>& symbols, uint64_t* steps) const {
  uint64_t counted = 0;
  if (symbols.size() <= kShortSymbols) {
    ApplyShort(symbols, counted);
  } else {
    ApplyLong(symbols, counted);
  }
  if (steps != nullptr) *steps += counted;
}

void BpeMerges::ApplyShort(std::vector<TokenId>& symbols, uint64_t& steps) const {
  std::array<const Slot*, kShortSymbols> pairs{};
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) pairs[i] = Find(symbols[i], symbols[i + 1]);
  steps += count;
  while (count > 1) {
    size_t best = count;
    uint32_t best_rank = kNoRank;
    for (size_t i = 0; i + 1 < count; ++i) {
      if (pairs[i] != nullptr && pairs[i]->rank < best_rank) {
        best = i;
        best_rank = pairs[i]->rank;
      }
    }
    steps += count;
    if (best == count) break;
    symbols[best] = pairs[best]->merged;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      pairs[i] = pairs[i + 1];
    }
    --count;
    if (best > 0) pairs[best - 1] = Find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) pairs[best] = Find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

void BpeMerges::ApplyLong(std::vector<TokenId>& symbols, uint64_t& steps) const {
  struct Node {
    TokenId id;
    int32_t previous, next;  // -1 = none
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;
    TokenId left, right, merged;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto count = static_cast<int32_t>(symbols.size());
  std::vector<Node> nodes(symbols.size());
  std::vector<Candidate> heap;
  heap.reserve(symbols.size());
  std::priority_queue queue(std::greater<Candidate>(), std::move(heap));
  const auto offer = [&](int32_t position) {
    ++steps;
    if (position < 0 || nodes[static_cast<size_t>(position)].next < 0) return;
    const Node& left = nodes[static_cast<size_t>(position)];
    const Node& right = nodes[static_cast<size_t>(left.next)];
    const Slot* slot = Find(left.id, right.id);
    if (slot != nullptr) queue.push({slot->rank, position, left.id, right.id, slot->merged});
  };
  for (int32_t i = 0; i < count; ++i) {
    nodes[static_cast<size_t>(i)] = {symbols[static_cast<size_t>(i)], i - 1,
                                     i + 1 < count ? i + 1 : -1};
  }
  for (int32_t i = 0; i + 1 < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    ++steps;
    Node& left = nodes[static_cast<size_t>(best.position)];
    if (left.id != best.left || left.next < 0) continue;  // merged away meanwhile
    Node& right = nodes[static_cast<size_t>(left.next)];
    if (right.id != best.right) continue;
    left.id = best.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) nodes[static_cast<size_t>(left.next)].previous = best.position;
    offer(left.previous);
    offer(best.position);
  }
  symbols.clear();
  for (int32_t i = 0; i >= 0; i = nodes[static_cast<size_t>(i)].next) {
    symbols.push_back(nodes[static_cast<size_t>(i)].id);
  }
}

}  // namespace muselet
