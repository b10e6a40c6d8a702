#include "scheduler/route/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Match = PrefixIndex::Match;

std::vector<BlockHash> Chain(uint64_t name, size_t blocks) {
  std::vector<BlockHash> hashes;
  for (size_t i = 0; i < blocks; ++i) hashes.push_back({name, i + 1});
  return hashes;
}

std::vector<Match> Find(PrefixIndex& index, const std::vector<BlockHash>& hashes) {
  std::vector<Match> matches;
  index.Find(hashes, &matches);
  return matches;
}

TEST(PrefixIndexTest, TellsWhoHoldsHowMuchTheLongestFirst) {
  PrefixIndex index(1000);
  const auto a = index.AddHolder();
  const auto b = index.AddHolder();
  const auto c = index.AddHolder();
  index.Add(a, Chain(1, 3));
  index.Add(b, Chain(1, 20));
  index.Add(c, Chain(2, 5));
  EXPECT_THAT(Find(index, Chain(1, 40)), ElementsAre(Match{b, 20}, Match{a, 3}));
  EXPECT_THAT(Find(index, Chain(1, 2)), UnorderedElementsAre(Match{a, 2}, Match{b, 2}));
  EXPECT_THAT(Find(index, Chain(2, 5)), ElementsAre(Match{c, 5}));
  EXPECT_THAT(Find(index, Chain(3, 5)), IsEmpty());
  EXPECT_THAT(Find(index, {}), IsEmpty());
  EXPECT_EQ(index.block_count(), 28U);
}

TEST(PrefixIndexTest, ForgetsWhatIsRemoved) {
  PrefixIndex index(1000);
  const auto a = index.AddHolder();
  index.Add(a, Chain(1, 10));
  auto tail = Chain(1, 10);
  tail.erase(tail.begin(), tail.begin() + 4);
  index.Remove(a, tail);
  index.Remove(a, tail);
  EXPECT_THAT(Find(index, Chain(1, 10)), ElementsAre(Match{a, 4}));
  EXPECT_EQ(index.CountOf(a), 4U);
}

TEST(PrefixIndexTest, GoneHolderIsNotFoundAndItsNumberIsUsedAgainOnlyWhenAllIsSwept) {
  PrefixIndex index(1000);
  const auto a = index.AddHolder();
  const auto b = index.AddHolder();
  index.Add(a, Chain(1, 50));
  index.Add(b, Chain(1, 10));
  index.DropHolder(a);
  EXPECT_THAT(Find(index, Chain(1, 50)), ElementsAre(Match{b, 10}));
  EXPECT_EQ(index.block_count(), 10U);
  EXPECT_NE(index.AddHolder(), a);
  for (int i = 0; i < 2000; ++i) index.Sweep();
  EXPECT_EQ(index.AddHolder(), a);
  EXPECT_THAT(Find(index, Chain(1, 50)), ElementsAre(Match{b, 10})) << "nothing of the old one";
}

TEST(PrefixIndexTest, FullIndexKeepsWhatWasLookedFor) {
  PrefixIndex index(20'000);
  const auto a = index.AddHolder();
  index.Add(a, Chain(1, 1000));
  for (uint64_t round = 0; round < 20; ++round) {
    index.Add(a, Chain(100 + round, 10'000));
    for (size_t blocks = 1; blocks <= 1000; ++blocks) {
      auto some = Chain(1, 1000);
      some = {some[blocks - 1]};
      (void)Find(index, some);
    }
    EXPECT_LE(index.block_count(), 20'000U);
  }
  const auto kept = Find(index, Chain(1, 1000));
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_GT(kept[0].blocks, 900U);
  EXPECT_LE(Find(index, Chain(100, 10'000)).size(), 1U);
}

TEST(PrefixIndexTest, TakesAtMost64BytesABlock) {
  for (const size_t holders : {1, 3, 256}) {
    PrefixIndex index(10'000'000);
    std::mt19937_64 random(1);
    std::vector<PrefixIndex::Holder> all;
    for (size_t i = 0; i < holders; ++i) all.push_back(index.AddHolder());
    for (uint64_t chain = 0; chain < 2000; ++chain) {
      const auto hashes = Chain(chain, 200);
      index.Add(all[random() % holders], hashes);
      // Most prefixes are held in part by others, too.
      index.Add(all[random() % holders], std::span<const BlockHash>(hashes).first(random() % 200));
    }
    const auto bytes = static_cast<double>(index.MemoryBytes());
    EXPECT_LE(bytes / static_cast<double>(index.block_count()), 64.0) << holders;
  }
}

// Against a plain map, with chains that share beginnings, removals and holders that go and come.
TEST(PrefixIndexTest, AgreesWithAPlainMap) {
  std::mt19937 random(7);
  PrefixIndex index(1'000'000);
  std::map<PrefixIndex::Holder, std::map<uint64_t, size_t>> held;  // blocks by chain
  for (int i = 0; i < 12; ++i) held[index.AddHolder()];
  for (int step = 0; step < 20'000; ++step) {
    auto holder = std::next(held.begin(), random() % held.size());
    const uint64_t chain = random() % 30;
    const auto whole = Chain(chain, 64);
    const std::span<const BlockHash> hashes(whole);
    size_t& blocks = holder->second[chain];
    const size_t other = random() % 65;
    if (other > blocks) index.Add(holder->first, hashes.subspan(blocks, other - blocks));
    if (other < blocks) index.Remove(holder->first, hashes.subspan(other, blocks - other));
    blocks = other;
    if (random() % 500 == 0) {
      index.DropHolder(holder->first);
      held.erase(holder);
      const auto added = index.AddHolder();
      ASSERT_FALSE(held.contains(added));
      held[added];
    }
    index.Sweep();
    std::map<PrefixIndex::Holder, uint32_t> want;
    uint64_t count = 0;
    for (const auto& [name, chains] : held) {
      const auto found = chains.find(chain);
      if (found != chains.end() && found->second > 0)
        want[name] = static_cast<uint32_t>(found->second);
      for (const auto& [id, length] : chains) count += length;
    }
    std::map<PrefixIndex::Holder, uint32_t> got;
    for (const Match& match : Find(index, whole)) got[match.holder] = match.blocks;
    ASSERT_EQ(got, want) << "step " << step;
    ASSERT_EQ(index.block_count(), count);
  }
}

}  // namespace
}  // namespace muselet
