#include <gtest/gtest.h>

#include "node/config/address.h"
#include "node/config/quantity.h"
#include "node/config/suggestion.h"

namespace muselet {
namespace {

TEST(Quantity, ReadsSizesAsPeopleWriteThem) {
  const std::vector<std::pair<const char*, int64_t>> cases = {{"0", 0},
                                                              {"4096", 4096},
                                                              {"4KiB", 4096},
                                                              {"256MiB", 268435456},
                                                              {"1.5GiB", 1610612736},
                                                              {"2 kB", 2000},
                                                              {"1TB", 1000000000000},
                                                              {"7B", 7}};
  for (const auto& [text, bytes] : cases) {
    const Result<int64_t> parsed = ParseBytes(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
  for (const char* bad : {"", "x", "1.3B", "4 kb", "1e400", "9999999TiB", "nan", "0x10", "1KiB "}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
}

TEST(Quantity, ReadsTimesWithMillisecondsWhereNoUnitIs) {
  const std::vector<std::pair<const char*, int64_t>> cases = {
      {"500", 500'000},    {"0.5", 500},        {"250us", 250},
      {"1.5s", 1'500'000}, {"2m", 120'000'000}, {"1h", 3'600'000'000}};
  for (const auto& [text, duration_us] : cases) {
    const Result<int64_t> parsed = ParseDurationUs(text);
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(*parsed, duration_us) << text;
  }
  for (const char* bad : {"", "s", "1d", "0.5us", "-", "inf"}) {
    EXPECT_FALSE(ParseDurationUs(bad).ok()) << bad;
  }
}

TEST(Quantity, WhatIsFormattedReadsBackTheSame) {
  for (const int64_t value : {0L, 1L, 999L, 1024L, 1048576L, 1610612736L, 123456789L}) {
    EXPECT_EQ(*ParseBytes(FormatBytes(value)), value);
    EXPECT_EQ(*ParseDurationUs(FormatDurationUs(value)), value);
  }
}

TEST(Address, TellsLoopbackFromTheRest) {
  for (const char* host : {"127.0.0.1", "127.9.9.9", "::1", "localhost"}) {
    EXPECT_TRUE(IsLoopbackHost(host)) << host;
  }
  for (const char* host : {"0.0.0.0", "10.0.0.1", "::", "example.org", "127.example.org"}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
  EXPECT_TRUE(IsLoopbackEndpoint("inproc://s0"));
  EXPECT_TRUE(IsLoopbackEndpoint("tcp://[::1]:1"));
  EXPECT_FALSE(IsLoopbackEndpoint("tcp://0.0.0.0:1"));
}

TEST(Address, RefusesWhatIsNotHostAndPort) {
  for (const char* bad : {"", "x", ":1", "x:", "x:-1", "x:65536", "1.2.3:1", "::1:80", "a b:1",
                          "[::1", "256.1.1.1:1"}) {
    EXPECT_FALSE(ParseHostPort(bad).ok()) << bad;
  }
  const Result<HostPort> six = ParseHostPort("[::1]:8000");
  ASSERT_TRUE(six.ok());
  EXPECT_EQ(six->host, "::1");
  EXPECT_EQ(six->port, 8000);
}

TEST(Suggestion, FindsTheNearestWordAndNothingFar) {
  const std::vector<std::string> words = {"serve", "run", "chat", "bench", "config", "version"};
  EXPECT_EQ(NearestWord("sevre", words), "serve");
  EXPECT_EQ(NearestWord("Benhc", words), "bench");
  EXPECT_EQ(NearestWord("conf", words), "config");
  EXPECT_EQ(NearestWord("kubernetes", words), "");
  EXPECT_EQ(NearestWord("", words), "");
  EXPECT_EQ(DidYouMean("rn", words), "did you mean run?");
  EXPECT_EQ(DidYouMean("zzz", words, "no idea"), "no idea");
}

}  // namespace
}  // namespace muselet
