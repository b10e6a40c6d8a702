// The regular-expression fallback of the pre-tokenizers: held against the hand-written scanners,
// and against what Hugging Face documents of SplitDelimiterBehavior.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "node/text/pre_tokenizer.h"
#include "node/text/utf8.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Cut(const PreTokenizer& splitter, const std::string& text) {
  Pieces pieces;
  const Status status = splitter.Split(text, pieces);
  EXPECT_TRUE(status.ok()) << status.message();
  return {pieces.views.begin(), pieces.views.end()};
}

std::vector<std::string> Cut(const SplitSpec& spec, const std::string& text) {
  const auto splitter = MakeRegexSplit(spec);
  EXPECT_TRUE(splitter.ok()) << splitter.status().message();
  return Cut(**splitter, text);
}

TEST(RegexSplit, AgreesWithTheScannersOfThePublishedPatterns) {
  const std::vector<std::string> atoms = {
      "a",      "B",      "7",      "42",     " ",      "  ",         "\n",     "\r\n",   "\t",
      "'s",     "'LL",    "'",      "!",      "?!",     ".",          "_",      "\u00E9", "\u4E16",
      "\u00A0", "\u2028", "\u0301", "\u0663", "\u00BD", "\U0001F600", "\u0130", "-"};
  std::mt19937 random(3);
  for (const std::string_view pattern : {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern}) {
    const SplitSpec spec = {.pattern = std::string(pattern)};
    const auto scanner = MakeSplit(spec);
    const auto regex = MakeRegexSplit(spec);
    ASSERT_TRUE(scanner.ok() && regex.ok()) << regex.status().message();
    for (int i = 0; i < 1500; ++i) {
      std::string text;
      for (size_t left = 1 + random() % 12; left > 0; --left)
        text += atoms[random() % atoms.size()];
      EXPECT_EQ(Cut(**scanner, text), Cut(**regex, text)) << pattern << "\n" << text;
    }
  }
}

TEST(RegexSplit, TreatsMatchesAsTheBehaviorSays) {
  const auto cut = [](SplitBehavior behavior) {
    return Cut(SplitSpec{.pattern = "-", .behavior = behavior}, "the-final--countdown");
  };
  EXPECT_THAT(cut(SplitBehavior::kRemoved), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(cut(SplitBehavior::kIsolated),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(cut(SplitBehavior::kMergedWithPrevious),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(cut(SplitBehavior::kMergedWithNext), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(cut(SplitBehavior::kContiguous), ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(RegexSplit, InvertTakesTheGapsForTheMatches) {
  const SplitSpec spec = {.pattern = "\\d+", .invert = true, .behavior = SplitBehavior::kRemoved};
  EXPECT_THAT(Cut(spec, "a12b3"), ElementsAre("12", "3"));
}

TEST(RegexSplit, TakesLiteralsLiterally) {
  EXPECT_THAT(Cut(SplitSpec{.pattern = "(.*)", .is_literal = true}, "a(.*)b"),
              ElementsAre("a", "(.*)", "b"));
}

TEST(RegexSplit, EmptyMatchesCutNothing) {
  EXPECT_THAT(Cut(SplitSpec{.pattern = "x*"}, "ab\u4E16xx"), ElementsAre("ab\u4E16", "xx"));
  EXPECT_THAT(Cut(SplitSpec{.pattern = "$"}, "ab"), ElementsAre("ab"));
}

TEST(RegexSplit, RefusesPatternsThatDoNotCompile) {
  for (const std::string pattern : {"", "(", "[z-a]", "a{99999999}", "\\", "(?<=a*"}) {
    EXPECT_FALSE(MakeRegexSplit({.pattern = pattern}).ok()) << pattern;
  }
  EXPECT_THAT(MakeRegexSplit({.pattern = std::string(20'000, 'a')}).status().message(),
              HasSubstr("at most 16384"));
  EXPECT_THAT(MakeRegexSplit({.pattern = "(\n"}).status().message(), HasSubstr("\"(?\""));
}

TEST(RegexSplit, GivesUpOnTextsThatBacktrackForever) {
  const auto splitter = MakeRegexSplit({.pattern = "(a|aa|aaa)+$"});
  ASSERT_TRUE(splitter.ok());
  Pieces pieces;
  const Status status = (*splitter)->Split(std::string(200, 'a') + "b", pieces);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("gave up on this text"));
}

TEST(OneLine, ShowsWhatIsPrintableAndCutsWholeCharacters) {
  EXPECT_EQ(OneLine("a\nb\x01\xFF\u00E9\u202E"), "a?b??\u00E9?");
  EXPECT_EQ(OneLine("\u4E16\u4E16\u4E16", 7), "\u4E16\u4E16...");
  EXPECT_EQ(Quoted("x\"y"), "\"x\"y\"");
}

}  // namespace
}  // namespace muselet
