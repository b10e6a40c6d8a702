// What a replica reports of its batcher: served tokens, prefill to come, prefixes that are held.
#include <gtest/gtest.h>

#include <set>

#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

class BatcherReportTest : public ::testing::Test {
 protected:
  static BatchOptions Options() {
    BatchOptions options;
    options.sequences_max = 4;
    options.prefill_chunk_max = 32;
    options.step_stretch = 100;
    options.resume_tokens_min = 16;
    return options;
  }
  static BatchModel Model(uint32_t blocks) {
    BatchModel model;
    model.vocab_size = 1000;
    model.context_tokens = 256;
    model.kv.groups = {{64, 32}, {blocks, 0}};  // the full group is not the first
    return model;
  }
  void Admit(uint64_t number, uint32_t prompt, uint32_t max_tokens,
             const std::string& surface = "a") {
    Submit submit;
    submit.sequence = {{0, number}, 0};
    submit.surface = surface;
    for (uint32_t i = 0; i < prompt; ++i)
      submit.prompt.push_back(static_cast<TokenId>((number * 300 + i) % 1000));
    submit.stop.max_tokens = max_tokens;
    ASSERT_TRUE(batcher_.Admit(std::move(submit), now_us_).ok());
  }
  bool Step() {
    const StepPlan plan = batcher_.Plan(now_us_);
    if (plan.empty()) return false;
    StepResult result;
    for (const SequenceSlice& slice : plan.slices) {
      result.slices.emplace_back();
      result.slices.back().sampled = slice.samples;
      result.slices.back().token.id = 9;
    }
    now_us_ += 1000;
    batcher_.Commit(plan.number, result, 1000, now_us_);
    return true;
  }
  void Follow() {
    PrefixChanges changes;
    batcher_.TakeCacheChanges(&changes);
    if (changes.whole) held_.clear();
    for (const PrefixChange& change : changes.list) {
      if (change.held) {
        EXPECT_TRUE(held_.insert(change.key).second);
      } else {
        EXPECT_EQ(held_.erase(change.key), 1U);
      }
    }
  }

  int64_t now_us_ = 1;
  Batcher batcher_{Options(), Model(14)};
  std::set<BlockHash> held_;
};

TEST_F(BatcherReportTest, EveryTokenIsCountedOnceForItsSurface) {
  Admit(1, 40, 5, "a");
  Admit(2, 10, 3, "b");
  while (Step()) {
  }
  EXPECT_EQ(batcher_.served().at("a"), 45U);
  EXPECT_EQ(batcher_.served().at("b"), 13U);
}

TEST_F(BatcherReportTest, WhatTheCacheHasIsNotCounted) {
  Admit(1, 40, 5, "a");
  while (Step()) {
  }
  Submit again;
  again.sequence = {{0, 9}, 0};
  again.surface = "b";
  for (uint32_t i = 0; i < 40; ++i) again.prompt.push_back(static_cast<TokenId>(300 + i));
  again.stop.max_tokens = 2;
  ASSERT_TRUE(batcher_.Admit(again, now_us_).ok());
  while (Step()) {
  }
  EXPECT_EQ(batcher_.served().at("b"), 8U + 2);
}

TEST_F(BatcherReportTest, WhatIsComputedAgainIsNotCounted) {
  Admit(1, 40, 30, "a");
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(Step());
  batcher_.Reset();
  while (Step()) {
  }
  EXPECT_EQ(batcher_.served().at("a"), 70U);
  // Two that outgrow the memory pause each other.
  Admit(2, 60, 80, "b");
  Admit(3, 60, 80, "b");
  while (Step()) {
  }
  EXPECT_GT(batcher_.counters().pauses, 0U);
  EXPECT_EQ(batcher_.served().at("b"), 280U);
}

TEST_F(BatcherReportTest, SurfacesBeyondTheLimitAreCountedTogether) {
  for (uint64_t i = 0; i < Batcher::kSurfacesMax + 3; ++i) {
    Admit(i + 1, 3, 1, "surface " + std::to_string(i));
    while (Step()) {
    }
  }
  EXPECT_EQ(batcher_.served().size(), Batcher::kSurfacesMax + 1);
  EXPECT_EQ(batcher_.served().at(""), 3U * 4);
}

TEST_F(BatcherReportTest, TheForecastIsThePrefillThatIsNotYetDone) {
  EXPECT_EQ(batcher_.ForecastPrefill().tokens, 0U);
  EXPECT_EQ(batcher_.ForecastPrefill().token_us, 0);
  Admit(1, 40, 5);
  Admit(2, 10, 3);
  EXPECT_EQ(batcher_.ForecastPrefill().tokens, 50U);
  uint64_t last = 50;
  while (last > 0) {
    ASSERT_TRUE(Step());
    const uint64_t now = batcher_.ForecastPrefill().tokens;
    EXPECT_LT(now, last);
    last = now;
  }
  EXPECT_GT(batcher_.ForecastPrefill().token_us, 0);
}

TEST_F(BatcherReportTest, WhatPrefillCostsDoesNotDependOnWhatRunsBesideIt) {
  Admit(1, 200, 2);
  while (Step()) {
  }
  const double alone_us = batcher_.ForecastPrefill().token_us;
  Admit(2, 10, 100);
  for (int i = 0; i < 20; ++i) Step();
  EXPECT_NEAR(batcher_.ForecastPrefill().token_us, alone_us, alone_us * 0.25);
}

TEST_F(BatcherReportTest, ChangesFollowThePrefixesOfTheFullGroup) {
  batcher_.RecordCacheChanges();
  Admit(1, 100, 2);
  while (Step()) {
  }
  Follow();
  EXPECT_EQ(held_.size(), 6U);
  // A prompt that needs most of the memory evicts some of them.
  Admit(2, 200, 2);
  while (Step()) {
    Follow();
    EXPECT_LE(held_.size(), 14U);
  }
  Follow();
  std::set<BlockHash> second;
  std::vector<TokenId> prompt;
  for (uint32_t i = 0; i < 200; ++i) prompt.push_back(static_cast<TokenId>((600 + i) % 1000));
  for (const BlockHash& key : HashBlocks(0, prompt)) EXPECT_TRUE(held_.contains(key));
  batcher_.Reset();
  Follow();
  EXPECT_TRUE(held_.empty());
}

TEST(PrefixChangesTest, MoreThanIsRememberedIsToldAnew) {
  KvPoolShape shape;
  shape.groups = {{4, 0}};
  PrefixCache cache(shape, true);
  cache.RecordChanges();
  for (uint64_t i = 0; i <= PrefixCache::kChangesMax; ++i) {
    const BlockId block = cache.Allocate(0);
    cache.Register(0, {1, i}, block);
    cache.Release(0, block);
  }
  PrefixChanges changes;
  cache.TakeChanges(&changes);
  EXPECT_TRUE(changes.whole);
  EXPECT_EQ(changes.list.size(), 4U);
  changes = {};
  cache.TakeChanges(&changes);
  EXPECT_FALSE(changes.whole);
  EXPECT_TRUE(changes.list.empty());
}

}  // namespace
}  // namespace muselet
