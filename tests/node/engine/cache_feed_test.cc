#include "node/engine/cache_feed.h"

#include <gtest/gtest.h>

#include <set>

namespace muselet {
namespace {

BlockHash Key(uint64_t number) {
  return {7, number};
}

PrefixChanges Changes(std::vector<std::pair<uint64_t, bool>> list) {
  PrefixChanges changes;
  for (const auto& [number, held] : list) changes.list.push_back({Key(number), held});
  return changes;
}

// A scheduler's view, built from messages alone.
class View {
 public:
  View(CacheFeed& feed, size_t reader) : feed_(feed), reader_(reader) {}
  // How many messages there were.
  int Read() {
    int count = 0;
    while (const auto events = feed_.Next(reader_)) {
      EXPECT_EQ(events->replica, "r0");
      EXPECT_EQ(events->epoch, 3U);
      EXPECT_EQ(events->sequence, ++sequence_);
      EXPECT_LE(events->added.size() + events->removed.size(), CacheFeed::kHashesMax);
      if (events->snapshot) keys_.clear();
      for (const BlockHash& key : events->added) keys_.insert(key);
      for (const BlockHash& key : events->removed) keys_.erase(key);
      feed_.Sent(reader_);
      ++count;
    }
    return count;
  }
  std::set<BlockHash> keys_;

 private:
  CacheFeed& feed_;
  size_t reader_;
  uint64_t sequence_ = 0;
};

TEST(CacheFeed, ASchedulerThatJoinsIsToldEverythingThenWhatChanges) {
  CacheFeed feed("r0", 3);
  const size_t reader = feed.AddReader();
  feed.Apply(Changes({{1, true}, {2, true}, {1, false}}));
  EXPECT_FALSE(feed.Next(reader).has_value());
  feed.Begin(reader);
  ASSERT_TRUE(feed.Next(reader).has_value());
  EXPECT_TRUE(feed.Next(reader)->snapshot);
  View view(feed, reader);
  EXPECT_EQ(view.Read(), 1);
  EXPECT_EQ(view.keys_, (std::set<BlockHash>{Key(2)}));
  feed.Apply(Changes({{3, true}, {2, false}}));
  EXPECT_FALSE(feed.Next(reader)->snapshot);
  EXPECT_EQ(view.Read(), 1);
  EXPECT_EQ(view.keys_, (std::set<BlockHash>{Key(3)}));
  EXPECT_EQ(view.Read(), 0);
}

TEST(CacheFeed, AnEmptyCacheIsToldToo) {
  CacheFeed feed("r0", 3);
  feed.Begin(feed.AddReader());
  ASSERT_TRUE(feed.Next(0).has_value());
  EXPECT_TRUE(feed.Next(0)->snapshot);
  EXPECT_TRUE(feed.Next(0)->added.empty());
}

TEST(CacheFeed, AMessageSaysOfAKeyOnlyWhatBecameOfIt) {
  CacheFeed feed("r0", 3);
  feed.Begin(feed.AddReader());
  feed.Sent(0);
  feed.Apply(Changes({{1, true}, {1, false}, {1, true}, {2, true}, {2, false}}));
  const auto events = feed.Next(0);
  EXPECT_EQ(events->added, std::vector<BlockHash>{Key(1)});
  EXPECT_EQ(events->removed, std::vector<BlockHash>{Key(2)});
}

TEST(CacheFeed, AMessageThatWasNotSentIsOfferedAgain) {
  CacheFeed feed("r0", 3);
  feed.Begin(feed.AddReader());
  feed.Apply(Changes({{1, true}}));
  EXPECT_EQ(feed.Next(0)->sequence, feed.Next(0)->sequence);
  EXPECT_EQ(feed.Next(0)->added, feed.Next(0)->added);
}

TEST(CacheFeed, MuchIsToldInManyMessagesWithoutAGap) {
  CacheFeed feed("r0", 3);
  PrefixChanges changes;
  const uint64_t count = 5 * CacheFeed::kHashesMax + 1;
  for (uint64_t i = 0; i < count; ++i) changes.list.push_back({Key(i), true});
  feed.Apply(changes);
  feed.Begin(feed.AddReader());
  View view(feed, 0);
  EXPECT_EQ(view.Read(), 6);
  EXPECT_EQ(view.keys_.size(), count);
}

TEST(CacheFeed, OneThatDoesNotKeepUpIsToldEverythingAnew) {
  CacheFeed feed("r0", 3);
  feed.Begin(feed.AddReader());
  View view(feed, 0);
  view.Read();
  for (uint64_t i = 0; i < 40; ++i) {
    PrefixChanges changes;
    for (uint64_t k = 0; k < CacheFeed::kHashesMax / 2; ++k) {
      changes.list.push_back({Key(i % 2), true});
      changes.list.push_back({Key(i % 2), false});
    }
    changes.list.push_back({Key(i), true});
    feed.Apply(changes);
  }
  EXPECT_LE(view.Read(), 6);
  EXPECT_EQ(view.keys_.size(), feed.held_count());
}

TEST(CacheFeed, ACacheThatIsToldAnewReplacesWhatWasKnown) {
  CacheFeed feed("r0", 3);
  feed.Begin(feed.AddReader());
  feed.Apply(Changes({{1, true}, {2, true}}));
  View view(feed, 0);
  view.Read();
  PrefixChanges whole = Changes({{2, true}, {5, true}});
  whole.whole = true;
  feed.Apply(whole);
  view.Read();
  EXPECT_EQ(view.keys_, (std::set<BlockHash>{Key(2), Key(5)}));
}

TEST(CacheFeed, NothingIsKeptForASchedulerThatIsGone) {
  CacheFeed feed("r0", 3);
  feed.Begin(feed.AddReader());
  feed.End(0);
  feed.Apply(Changes({{1, true}}));
  EXPECT_FALSE(feed.Next(0).has_value());
}

}  // namespace
}  // namespace muselet
