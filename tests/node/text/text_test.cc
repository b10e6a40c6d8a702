#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node/text/bpe_merges.h"
#include "node/text/chat_template.h"
#include "node/text/detokenizer.h"
#include "node/text/tokenizer.h"
#include "node/text/utf8.h"

namespace muselet {
namespace {

// A vocabulary of the 256 bytes (spelled by GPT-2's alphabet), "ab", "abc" and a control token.
std::string ByteTokenizerJson() {
  std::string vocab;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string spelled;
    AppendUtf8(static_cast<char32_t>(itself ? byte : next++), spelled);
    if (spelled == "\"" || spelled == "\\") spelled = "\\" + spelled;
    vocab += "\"" + spelled + "\":" + std::to_string(byte) + ",";
  }
  return R"({"added_tokens":[{"id":258,"content":"<|end|>","special":true,"normalized":false}],)"
         R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
         R"("model":{"type":"BPE","vocab":{)" +
         vocab + R"("ab":256,"abc":257},"merges":["a b",["ab","c"]]}})";
}

std::unique_ptr<Tokenizer> ByteTokenizer() {
  auto tokenizer = LoadHuggingFaceTokenizer(ByteTokenizerJson(), "");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  return std::move(*tokenizer);
}

TEST(Tokenizer, ReadsControlTokensOnlyInTrustedText) {
  const auto tokenizer = ByteTokenizer();
  const std::string text = "abc<|end|><|end|>";
  const std::vector<TextRange> typed = {{0, 10}};
  EXPECT_EQ(tokenizer->Encode(text, SpecialTokens::kParse)->size(), 3U);
  EXPECT_EQ(tokenizer->Encode(text, SpecialTokens::kAsText)->size(), 15U);
  const auto ids = *tokenizer->Encode(text, SpecialTokens::kParse, typed);
  EXPECT_EQ(ids.size(), 9U);
  EXPECT_EQ(ids.back(), 258);
}

TEST(Tokenizer, RefusesWhatIsNotUtf8) {
  EXPECT_FALSE(ByteTokenizer()->Encode("a\xC3", SpecialTokens::kParse).ok());
}

TEST(Tokenizer, RefusesMalformedFilesNamingTheField) {
  const std::string good = ByteTokenizerJson();
  const auto message = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    bad.replace(bad.find(from), from.size(), to);
    const auto tokenizer = LoadHuggingFaceTokenizer(bad, "");
    return tokenizer.ok() ? "accepted" : tokenizer.status().message();
  };
  EXPECT_THAT(message("\"ab\":256", "\"ab\":2147483647"), ::testing::HasSubstr("out of range"));
  EXPECT_THAT(message("\"ab\":256", "\"ab\":255"), ::testing::HasSubstr("given twice"));
  EXPECT_THAT(message("\"ab\":256", "\"ab\":-1"), ::testing::HasSubstr("model.vocab"));
  EXPECT_THAT(message("\"a b\"", "\"a zz\""), ::testing::HasSubstr("model.merges[0]"));
  EXPECT_THAT(message("\"a b\"", "7"), ::testing::HasSubstr("model.merges[0]"));
  EXPECT_THAT(message("\"BPE\"", "\"Unigram\""), ::testing::HasSubstr("Unigram"));
  EXPECT_THAT(message("258", "99999999"), ::testing::HasSubstr("added_tokens"));
}

TEST(BpeMerges, CostGrowsNearlyLinearlyWithALongWord) {
  std::vector<BpeMerges::Merge> merges;
  for (TokenId id = 0; id < 8; ++id) merges.push_back({id, id, id + 1});
  const BpeMerges table(merges);
  const auto steps = [&](size_t size) {
    std::vector<TokenId> symbols(size, 0);
    uint64_t count = 0;
    table.Apply(symbols, &count);
    EXPECT_EQ(symbols.size(), size / 256);
    return count;
  };
  EXPECT_LT(static_cast<double>(steps(1 << 20)) / static_cast<double>(steps(1 << 19)), 2.3);
}

TEST(Detokenizer, NeverGivesHalfACharacter) {
  const auto tokenizer = ByteTokenizer();
  const std::string text = "a\u00E9\u4E16\U0001F600z";
  const auto ids = *tokenizer->Encode(text, SpecialTokens::kAsText);
  Detokenizer detokenizer(*tokenizer, false);
  std::string shown;
  for (const TokenId id : ids) {
    const std::string piece = detokenizer.Push(id);
    EXPECT_TRUE(IsValidUtf8(piece));
    shown += piece;
  }
  EXPECT_EQ(shown + detokenizer.Finish(), text);
}

TEST(Detokenizer, ReplacesWhatCannotBecomeACharacter) {
  const auto tokenizer = ByteTokenizer();
  Detokenizer detokenizer(*tokenizer, false);
  EXPECT_EQ(detokenizer.Push(0xE4), "");
  EXPECT_EQ(detokenizer.Push('a'), "\uFFFDa");
  EXPECT_EQ(detokenizer.Push(258), "");
  EXPECT_EQ(detokenizer.Push(0xF0), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
}

TEST(StopMatcher, FindsTheSameStopInWhateverPiecesTheTextComes) {
  const std::string text = "one two STOP three";
  for (size_t size = 1; size <= text.size(); ++size) {
    StopMatcher matcher({"three", "STOP", "OPx"});
    std::string shown;
    bool stopped = false;
    for (size_t i = 0; i < text.size() && !stopped; i += size) {
      const auto output = matcher.Push(std::string_view(text).substr(i, size), false);
      shown += output.text;
      stopped = output.stopped;
    }
    EXPECT_TRUE(stopped);
    EXPECT_EQ(shown, "one two ");
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeginAStop) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("Hello.\n\n", false).text, "Hello.");
  EXPECT_EQ(matcher.Push("Us", false).text, "");
  EXPECT_EQ(matcher.Push("e it", false).text, "\n\nUse it");
  EXPECT_EQ(matcher.Push("\n", false).text, "");
  EXPECT_EQ(matcher.Finish(), "\n");
}

Result<RenderedPrompt> Render(const std::string& source) {
  const auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return parsed.status();
  ChatTemplateInput input;
  input.messages = Json::array({{{"role", "user"}, {"content", " <|end|> "}}});
  return (*parsed)->Render(input);
}

TEST(ChatTemplate, KnowsWhichTextCameFromTheClient) {
  const auto rendered = Render("<|end|>{{ (messages[0].content | trim) + '!' }}<|end|>");
  ASSERT_TRUE(rendered.ok()) << rendered.status().ToString();
  EXPECT_EQ(rendered->text, "<|end|><|end|>!<|end|>");
  ASSERT_EQ(rendered->untrusted.size(), 1U);
  EXPECT_EQ(rendered->untrusted[0].begin, 7U);
  EXPECT_EQ(rendered->untrusted[0].end, 14U);
}

TEST(ChatTemplate, GivesTheTemplatesOwnMessageAndLinesForFaults) {
  EXPECT_EQ(Render("{{ raise_exception('no tools') }}").status().message(), "no tools");
  EXPECT_TRUE(Render("a\n{{ messages.x.y }}").status().message().starts_with("line 2: "));
  EXPECT_TRUE(Render("a\n\n{% if %}").status().message().starts_with("line 3: "));
}

TEST(ChatTemplate, StopsHostileTemplates) {
  EXPECT_FALSE(Render("{{ " + std::string(100'000, '(') + " }}").ok());
  std::string sum = "{{ 1";
  for (int i = 0; i < 100'000; ++i) sum += "+1";
  EXPECT_FALSE(Render(sum + " }}").ok());
  EXPECT_FALSE(Render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").ok());
  const std::string loop = "{% for i in range(99999) %}";
  EXPECT_FALSE(Render(loop + loop + "x{% endfor %}{% endfor %}").ok());
  EXPECT_FALSE(Render("{% set n = namespace(x=[1]) %}{% for i in range(99) %}"
                      "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}")
                   .ok());
  EXPECT_FALSE(Render("{{ 'a' * 999999999999 }}").ok());
}

}  // namespace
}  // namespace muselet
