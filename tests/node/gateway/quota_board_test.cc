#include "node/gateway/quota_board.h"

#include <gtest/gtest.h>

namespace muselet {
namespace {

constexpr int64_t kSecondUs = 1'000'000;

SurfaceOptions Surface() {
  SurfaceOptions surface;
  surface.name = "chat";
  surface.requests_per_minute = 60;
  surface.tokens_per_minute = 6000;
  return surface;
}

std::string Text(const HttpHeaders& headers) {
  std::string text;
  for (const auto& [name, value] : headers) {
    EXPECT_TRUE(name.starts_with("x-ratelimit-")) << name;
    text += (text.empty() ? "" : " ") + name.substr(12) + "=" + value;
  }
  return text;
}

TEST(QuotaBoard, WhatIsLeftFillsAgainAndIsTheSumOfWhatSchedulersHandOut) {
  QuotaBoard board;
  EXPECT_EQ(board.At(Surface(), 0).requests_remaining, 60U);  // nobody has said otherwise
  board.Note(0, "chat", {30, 0, 60 * kSecondUs, 3000, 1500, 30 * kSecondUs}, 10 * kSecondUs);
  board.Note(1, "chat", {30, 30, 0, 3000, 3000, 0}, 10 * kSecondUs);
  board.Note(0, "glasses", {30, 7, 60 * kSecondUs, 0, 0, 0}, 10 * kSecondUs);
  const QuotaState now = board.At(Surface(), 10 * kSecondUs);
  EXPECT_EQ(now, (QuotaState{60, 30, 60 * kSecondUs, 6000, 4500, 30 * kSecondUs}));
  const QuotaState later = board.At(Surface(), 25 * kSecondUs);
  EXPECT_EQ(later, (QuotaState{60, 37, 45 * kSecondUs, 6000, 5250, 15 * kSecondUs}));
  EXPECT_EQ(board.At(Surface(), 100 * kSecondUs), (QuotaState{60, 60, 0, 6000, 6000, 0}));
  // One scheduler hands out all of it once the other is gone.
  board.Forget(1);
  EXPECT_EQ(board.At(Surface(), 10 * kSecondUs).requests_remaining, 0U);
}

TEST(QuotaBoard, SaysQuotasAsClientsReadThem) {
  HttpHeaders headers;
  AppendRateLimits({60, 37, 45 * kSecondUs, 6000, 5250, 1'500'000}, headers);
  EXPECT_EQ(Text(headers),
            "limit-requests=60 remaining-requests=37 reset-requests=45s limit-tokens=6000 "
            "remaining-tokens=5250 reset-tokens=1.5s");
  headers.clear();
  AppendRateLimits({}, headers);
  EXPECT_EQ(Text(headers),
            "limit-requests=9007199254740991 remaining-requests=9007199254740991 "
            "reset-requests=0s limit-tokens=9007199254740991 "
            "remaining-tokens=9007199254740991 reset-tokens=0s");
  EXPECT_EQ(ResetText(-5), "0s");
  EXPECT_EQ(ResetText(1), "1ms");
  EXPECT_EQ(ResetText(120'000), "120ms");
  EXPECT_EQ(ResetText(360 * kSecondUs), "6m0s");
}

}  // namespace
}  // namespace muselet
