#include "scheduler/route/surface_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muselet {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000;
constexpr auto kClass = RequestClass::kInteractive;

SurfaceOptions Surface(const std::string& name, double share = 1.0) {
  SurfaceOptions surface;
  surface.name = name;
  surface.share = share;
  return surface;
}

TEST(SurfaceLedgerTest, KnowsTheConfiguredSurfacesOnly) {
  SurfaceLedger ledger({Surface("web"), Surface("glasses")});
  EXPECT_EQ(ledger.Find("glasses"), 1U);
  EXPECT_FALSE(ledger.Find("nonsense"));
  EXPECT_EQ(ledger.Names(), "glasses, web");
}

TEST(SurfaceLedgerTest, WithoutAConfigWhoeverAsksHasAnAccountUpToABound) {
  SurfaceLedger ledger({});
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(ledger.Find("s" + std::to_string(i)));
  EXPECT_LE(ledger.size(), 1001U);
}

TEST(SurfaceLedgerTest, RequestQuotaRefillsWithTime) {
  SurfaceOptions options = Surface("web");
  options.requests_per_minute = 60;
  SurfaceLedger ledger({options});
  int64_t now_us = 10 * kSecond;
  int64_t retry_us = 0;
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(ledger.Charge(0, 1, now_us, &retry_us).ok()) << i;
  const Status refused = ledger.Charge(0, 1, now_us, &retry_us);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(), HasSubstr("60 requests a minute"));
  EXPECT_EQ(retry_us, kSecond);
  EXPECT_EQ(ledger.Quota(0, now_us).requests_remaining, 0U);
  EXPECT_EQ(ledger.Quota(0, now_us).requests_reset_us, 60 * kSecond);
  now_us += kSecond;
  EXPECT_TRUE(ledger.Charge(0, 1, now_us, &retry_us).ok());
  EXPECT_FALSE(ledger.Charge(0, 1, now_us, &retry_us).ok());
}

TEST(SurfaceLedgerTest, TokenQuotaIsChargedAndWhatWasNotUsedComesBack) {
  SurfaceOptions options = Surface("web");
  options.tokens_per_minute = 1000;
  SurfaceLedger ledger({options});
  int64_t retry_us = 0;
  ASSERT_TRUE(ledger.Charge(0, 700, kSecond, &retry_us).ok());
  EXPECT_FALSE(ledger.Charge(0, 700, kSecond, &retry_us).ok());
  EXPECT_EQ(retry_us, 24 * kSecond) << "400 tokens at 1000 a minute";
  ledger.Refund(0, false, 500);
  EXPECT_EQ(ledger.Quota(0, kSecond).tokens_remaining, 800U);
  EXPECT_TRUE(ledger.Charge(0, 700, kSecond, &retry_us).ok());
}

TEST(SurfaceLedgerTest, ARequestBeyondTheWholeQuotaPassesWhenItIsFullAndIsOwedFor) {
  SurfaceOptions options = Surface("web");
  options.tokens_per_minute = 1000;
  SurfaceLedger ledger({options});
  int64_t retry_us = 0;
  ASSERT_TRUE(ledger.Charge(0, 3000, kSecond, &retry_us).ok());
  EXPECT_FALSE(ledger.Charge(0, 1, 121 * kSecond, &retry_us).ok());
  EXPECT_TRUE(ledger.Charge(0, 1, 122 * kSecond, &retry_us).ok());
}

TEST(SurfaceLedgerTest, QuotasAreSplitAmongSchedulers) {
  SurfaceOptions options = Surface("web");
  options.requests_per_minute = 60;
  options.running_max = 5;
  SurfaceLedger ledger({options});
  ledger.SetSchedulerCount(2);
  int64_t retry_us = 0;
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(ledger.Charge(0, 1, kSecond, &retry_us).ok()) << i;
  EXPECT_FALSE(ledger.Charge(0, 1, kSecond, &retry_us).ok());
  EXPECT_EQ(ledger.Quota(0, kSecond).requests_limit, 60U) << "clients see the whole";
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(ledger.MayRun(0));
    ledger.Place(0, 10);
  }
  EXPECT_FALSE(ledger.MayRun(0));
  ledger.EndPlaced(0, 10, true);
  EXPECT_TRUE(ledger.MayRun(0));
}

TEST(SurfaceLedgerTest, NoQuotaIsToldAsNone) {
  SurfaceLedger ledger({Surface("web")});
  EXPECT_EQ(ledger.Quota(0, kSecond), QuotaState{});
}

TEST(SurfaceLedgerTest, TokensCountByShareAndIdlingEarnsNoCredit) {
  SurfaceLedger ledger({Surface("a", 3), Surface("b", 1)});
  ledger.EnterLine(0, kClass, 10, kSecond);
  ledger.CountServed(0, 3000);
  ledger.EnterLine(1, kClass, 10, kSecond);
  EXPECT_GE(ledger.Virtual(1), ledger.Virtual(0)) << "lifted to the one that waits";
  ledger.CountServed(1, 100);
  ledger.CountServed(0, 300);
  EXPECT_DOUBLE_EQ(ledger.Virtual(1), ledger.Virtual(0));
}

TEST(SurfaceLedgerTest, PlacedTokensCountUntilTheyAreReported) {
  SurfaceLedger ledger({Surface("a")});
  ledger.Place(0, 500);
  EXPECT_EQ(ledger.Virtual(0), 500);
  ledger.EndPlaced(0, 500, false);
  EXPECT_EQ(ledger.Virtual(0), 0) << "its node reports what it served";
  ledger.Place(0, 500);
  ledger.EndPlaced(0, 500, true);
  EXPECT_EQ(ledger.Virtual(0), 500) << "its node does not";
}

TEST(SurfaceLedgerTest, BoundsOfTheLineAreNamed) {
  SurfaceOptions options = Surface("web");
  options.waiting_requests_max = 2;
  options.waiting_tokens_max = 100;
  SurfaceLedger ledger({options});
  ledger.EnterLine(0, kClass, 500, kSecond);
  EXPECT_TRUE(ledger.CheckLine(0).ok()) << "a single long one may wait";
  ledger.EnterLine(0, kClass, 10, kSecond);
  EXPECT_THAT(ledger.CheckLine(0).message(), HasSubstr("100 prompt tokens"));
  ledger.LeaveLine(0, kClass, 500, kSecond);
  ledger.EnterLine(0, kClass, 10, kSecond);
  EXPECT_TRUE(ledger.CheckLine(0).ok());
  ledger.EnterLine(0, kClass, 10, kSecond);
  EXPECT_THAT(ledger.CheckLine(0).message(), HasSubstr("2 requests"));
}

TEST(SurfaceLedgerTest, WaitIsWhatTheLineTakesAtThePaceOfLate) {
  SurfaceLedger ledger({Surface("web")});
  int64_t now_us = kSecond;
  EXPECT_EQ(ledger.WaitUs(0, now_us), 0);
  for (int i = 0; i < 100; ++i) ledger.EnterLine(0, kClass, 1, now_us);
  EXPECT_FALSE(ledger.WaitUs(0, now_us)) << "nothing is known yet";
  for (int i = 0; i < 80; ++i) {  // 20 a second
    now_us += kSecond / 20;
    ledger.CountGrant(0, now_us);
    ledger.LeaveLine(0, kClass, 1, now_us);
  }
  const auto wait_us = ledger.WaitUs(0, now_us);
  ASSERT_TRUE(wait_us);
  EXPECT_NEAR(static_cast<double>(*wait_us), 1e6, 0.3e6) << "20 wait";
}

}  // namespace
}  // namespace muselet
