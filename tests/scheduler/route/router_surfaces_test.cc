// Transcripts of surfaces: classes, shares, quotas, the bounds of the line, what is refused first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/scheduler/route/router_fixture.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

SurfaceOptions Surface(const std::string& name, RequestClass request_class, double share = 1.0) {
  SurfaceOptions surface;
  surface.name = name;
  surface.request_class = request_class;
  surface.share = share;
  return surface;
}

class RouterSurfacesTest : public RouterTest {
 protected:
  static Place Of(uint64_t id, const std::string& surface, uint32_t attempt = 0) {
    Place place = PlaceOf(id, attempt);
    place.surface = surface;
    return place;
  }

  // Requests of both surfaces always wait; each that is placed ends after a step. Returns how many
  // of `a` and `b` were placed in all.
  std::pair<int, int> Saturate(int rounds, bool reports_served) {
    Join();
    uint64_t id = 0;
    std::map<uint64_t, std::string> surface_of;
    std::map<std::string, int> placed;
    std::map<std::string, uint64_t> served;
    std::vector<uint64_t> running;
    const auto add = [&](const std::string& surface) {
      surface_of[++id] = surface;
      Collect(Say("g", Of(id, surface)), &running);
    };
    for (int i = 0; i < 40; ++i) add(i % 2 == 0 ? "a" : "b");
    for (int round = 0; round < rounds; ++round) {
      now_us_ += 10 * kMs;
      const uint64_t done = running.front();
      running.erase(running.begin());
      const std::string surface = surface_of[done];
      ++placed[surface];
      served[surface] += 20;
      if (reports_served) {
        Report report = ReportOf("n0");
        for (const auto& [name, tokens] : served) report.served.push_back({name, tokens});
        Collect(Say("n0", report), &running);
      }
      Collect(Say("g", ReleaseOf(done)), &running);
      add(surface);
    }
    return {placed["a"], placed["b"]};
  }
  static void Collect(const std::vector<std::string>& said, std::vector<uint64_t>* running) {
    for (const std::string& text : said)
      if (text.starts_with("g <- ticket ")) running->push_back(std::stoull(text.substr(12)));
  }
};

TEST_F(RouterSurfacesTest, UnknownSurfaceIsRefusedNamingTheKnownOnes) {
  Make({}, {Surface("web", RequestClass::kInteractive)});
  Join();
  EXPECT_THAT(Say("g", Of(1, "nonsense")), ElementsAre("g <- refused 1.0 permission_denied"));
  EXPECT_THAT(LastRefused().message, HasSubstr("web"));
  EXPECT_EQ(router_->counts().unknown_surfaces, 1U);
  EXPECT_THAT(Say("g", Of(2, "web")), ElementsAre("g <- ticket 2.0 n0-r@1"));
}

TEST_F(RouterSurfacesTest, SharesAreKeptBetweenSurfacesThatAlwaysWait) {
  for (const bool reports_served : {true, false}) {
    Make({},
         {Surface("a", RequestClass::kInteractive, 3), Surface("b", RequestClass::kInteractive)});
    const auto [a, b] = Saturate(400, reports_served);
    EXPECT_NEAR(a, 3 * b, 0.05 * 400) << reports_served;
  }
}

TEST_F(RouterSurfacesTest, BatchWorkKeepsAFloorOfTwoPercent) {
  Make({}, {Surface("a", RequestClass::kRealtime), Surface("b", RequestClass::kBatch)});
  const auto [a, b] = Saturate(1000, true);
  EXPECT_GE(b, 15);
  EXPECT_LE(b, 30);
}

TEST_F(RouterSurfacesTest, ClassIsTheSurfacesUnlessTheRequestAsksForLess) {
  Make({.waiting_max = 100},
       {Surface("a", RequestClass::kInteractive), Surface("b", RequestClass::kInteractive)});
  Say("g", GatewayHello("g"));
  Place eager = Of(1, "b");
  Place modest = Of(2, "a");
  eager.request_class = RequestClass::kRealtime;
  modest.request_class = RequestClass::kBatch;
  Say("g", modest);
  Say("g", Of(3, "a"));
  Say("g", eager);
  Say("n0", NodeHello("n0"));
  EXPECT_THAT(
      Say("n0", ReportOf("n0")),
      ElementsAre("g <- ticket 3.0 n0-r@1", "g <- ticket 1.0 n0-r@1", "g <- ticket 2.0 n0-r@1"));
}

TEST_F(RouterSurfacesTest, BetterClassFindsRoomWhereWorseWorkHoldsTheSlots) {
  Make({}, {Surface("a", RequestClass::kRealtime), Surface("b", RequestClass::kBatch)});
  Join();
  for (uint64_t id = 1; id <= 5; ++id) EXPECT_EQ(Say("g", Of(id, "b")).size(), 1U);
  EXPECT_THAT(Say("g", Of(6, "b")), IsEmpty());
  EXPECT_THAT(Say("g", Of(7, "a")), ElementsAre("g <- ticket 7.0 n0-r@1"));
}

TEST_F(RouterSurfacesTest, QuotaIsToldWithEveryAnswerAndRefusesWithATimeToRetry) {
  SurfaceOptions web = Surface("web", RequestClass::kInteractive);
  web.requests_per_minute = 2;
  web.tokens_per_minute = 1000;
  Make({}, {web});
  Join();
  Say("g", Of(1, "web"));
  const QuotaState quota = std::get<Ticket>(last_.back().message).quota;
  EXPECT_EQ(quota.requests_limit, 2U);
  EXPECT_EQ(quota.requests_remaining, 1U);
  EXPECT_EQ(quota.requests_reset_us, 30 * kSecond);
  EXPECT_EQ(quota.tokens_remaining, 980U);
  Say("g", Of(2, "web"));
  EXPECT_THAT(Say("g", Of(3, "web")), ElementsAre("g <- refused 3.0 resource_exhausted"));
  EXPECT_EQ(LastRefused().retry_after_us, 30 * kSecond);
  EXPECT_EQ(LastRefused().quota.requests_remaining, 0U);
  EXPECT_THAT(Say("g", Of(2, "web", 1)), ElementsAre("g <- ticket 2.1 n0-r@1"))
      << "a later attempt was charged already";
}

TEST_F(RouterSurfacesTest, RepeatByAnotherGatewayIsChargedLikeAnyRequest) {
  SurfaceOptions web = Surface("web", RequestClass::kInteractive);
  web.requests_per_minute = 1;
  Make({}, {web});
  Join();
  Say("g", Of(1, "web", 5'000'000));
  EXPECT_THAT(Say("g", Of(2, "web", 5'000'000)),
              ElementsAre("g <- refused 2.5000000 resource_exhausted"));
  EXPECT_THAT(Say("g", Of(2, "web", 5'000'001)),
              ElementsAre("g <- refused 2.5000001 resource_exhausted"));
}

TEST_F(RouterSurfacesTest, UnusedTokensGoBackWhenTheRequestEnds) {
  SurfaceOptions web = Surface("web", RequestClass::kInteractive);
  web.tokens_per_minute = 1000;
  Make({}, {web});
  Join();
  Place place = Of(1, "web");
  place.max_tokens = 900;
  Say("g", place);
  EXPECT_EQ(std::get<Ticket>(last_.back().message).quota.tokens_remaining, 90U);
  Say("g", Release{{0, 1}, 0, 100});
  Say("g", Of(2, "web"));
  EXPECT_EQ(std::get<Ticket>(last_.back().message).quota.tokens_remaining, 1000U - 110 - 20);
}

TEST_F(RouterSurfacesTest, RefusedRequestIsNotCharged) {
  SurfaceOptions web = Surface("web", RequestClass::kInteractive);
  web.requests_per_minute = 100;
  web.waiting_requests_max = 1;
  Make({}, {web});
  Say("g", GatewayHello("g"));
  Say("g", Of(1, "web"));
  EXPECT_THAT(Say("g", Of(2, "web")), ElementsAre("g <- refused 2.0 resource_exhausted"));
  EXPECT_EQ(LastRefused().quota.requests_remaining, 99U);
  EXPECT_THAT(LastRefused().message, HasSubstr("'web' wait already"));
}

TEST_F(RouterSurfacesTest, RunningMaxLetsTheRestWait) {
  SurfaceOptions web = Surface("web", RequestClass::kInteractive);
  web.running_max = 2;
  Make({}, {web, Surface("other", RequestClass::kInteractive)});
  Join();
  EXPECT_EQ(Say("g", Of(1, "web")).size(), 1U);
  EXPECT_EQ(Say("g", Of(2, "web")).size(), 1U);
  EXPECT_THAT(Say("g", Of(3, "web")), IsEmpty());
  EXPECT_EQ(Say("g", Of(4, "other")).size(), 1U);
  EXPECT_THAT(Say("g", ReleaseOf(1)), ElementsAre("g <- ticket 3.0 n0-r@1"));
}

TEST_F(RouterSurfacesTest, FullLineShedsTheWorstClassFirstAndNeverAStreamThatHadBegun) {
  Make({.waiting_max = 3},
       {Surface("a", RequestClass::kRealtime), Surface("b", RequestClass::kBatch)});
  Say("g", GatewayHello("g"));
  Say("g", Of(1, "b", 2));
  Say("g", Of(2, "b"));
  Say("g", Of(3, "a"));
  EXPECT_THAT(Say("g", Of(4, "a")), ElementsAre("g <- refused 2.0 resource_exhausted"));
  EXPECT_THAT(Say("g", Of(5, "b")), ElementsAre("g <- refused 5.0 resource_exhausted"));
  EXPECT_THAT(Say("g", Of(6, "a")), ElementsAre("g <- refused 6.0 resource_exhausted"));
  EXPECT_EQ(router_->counts().waiting, 3U);
}

TEST_F(RouterSurfacesTest, FloodOfOneSurfaceLeavesTheLineToOthersOfItsClass) {
  Make({.waiting_max = 4},
       {Surface("a", RequestClass::kInteractive), Surface("b", RequestClass::kInteractive)});
  Say("g", GatewayHello("g"));
  for (uint64_t id = 1; id <= 4; ++id) Say("g", Of(id, "a"));
  EXPECT_THAT(Say("g", Of(5, "b")), ElementsAre("g <- refused 4.0 resource_exhausted"));
}

TEST_F(RouterSurfacesTest, WaitBeyondTheObjectiveIsRefusedAtOnceOnceThePaceIsKnown) {
  SurfaceOptions web = Surface("web", RequestClass::kInteractive);
  web.ttft_us = 500 * kMs;
  Make({}, {web});
  Join();
  uint64_t id = 0;
  for (int i = 0; i < 9; ++i) Say("g", Of(++id, "web"));
  active_["n0"] = {{{0, 1}, 0}, {{0, 2}, 0}, {{0, 3}, 0}, {{0, 4}, 0}, {{0, 5}, 0}};
  // One ends each 200 ms: four in line are 800 ms.
  for (const uint64_t ended : {1, 2}) {
    Pass(200 * kMs);
    Say("g", ReleaseOf(ended));
    active_["n0"].erase(active_["n0"].begin());
    active_["n0"].push_back({{0, 5 + ended}, 0});
  }
  EXPECT_EQ(router_->counts().waiting, 2U);
  EXPECT_THAT(Say("g", Of(++id, "web")), ElementsAre("g <- refused 10.0 resource_exhausted"));
  EXPECT_THAT(LastRefused().message, HasSubstr("objective"));
  EXPECT_GE(LastRefused().retry_after_us, options_.retry_after_us);
  EXPECT_EQ(router_->surface_counts()[0].refusals[static_cast<size_t>(RefusalReason::kOverload)],
            1U);
}

TEST_F(RouterSurfacesTest, WhatWaitedFarBeyondItsObjectiveIsDropped) {
  SurfaceOptions web = Surface("web", RequestClass::kInteractive);
  web.ttft_us = 600 * kMs;
  Make({}, {web});
  Join();
  for (uint64_t id = 1; id <= 6; ++id) Say("g", Of(id, "web"));
  for (uint64_t id = 1; id <= 5; ++id) active_["n0"].push_back({{0, id}, 0});
  EXPECT_THAT(Pass(1200 * kMs), IsEmpty());
  EXPECT_THAT(Pass(100 * kMs), ElementsAre("g <- refused 6.0 resource_exhausted"));
}

}  // namespace
}  // namespace muselet
