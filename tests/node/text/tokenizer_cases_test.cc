#include "tests/node/text/tokenizer_cases.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "base/json.h"
#include "node/model/gguf.h"
#include "node/text/detokenizer.h"
#include "node/text/tokenizer.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace testing {

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<TokenizerCase> ReadTokenizerCases(const std::string& path) {
  std::vector<TokenizerCase> cases;
  std::istringstream lines(ReadFile(path));
  for (std::string line; std::getline(lines, line);) {
    const auto json = ParseJson(line);
    if (!json.ok()) continue;
    cases.push_back({(*json)["text"], (*json)["ids"], (*json)["ids_special"], (*json)["decoded"],
                     (*json)["decoded_skip_special"]});
  }
  return cases;
}

}  // namespace testing

namespace {

using testing::ReadFile;
using testing::ReadTokenizerCases;
using testing::TokenizerCase;

std::string Decode(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, bool show_control) {
  Detokenizer detokenizer(tokenizer, show_control);
  std::string text;
  for (const TokenId id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Finish();
}

void ExpectCases(const Tokenizer& tokenizer, const std::vector<TokenizerCase>& cases) {
  ASSERT_GT(cases.size(), 100U);
  for (const TokenizerCase& expected : cases) {
    const auto ids = tokenizer.Encode(expected.text, SpecialTokens::kParse);
    ASSERT_TRUE(ids.ok()) << ids.status().ToString();
    EXPECT_EQ(*ids, expected.ids) << expected.text;
    std::vector<TokenId> with_bos = *ids;
    if (tokenizer.adds_bos()) with_bos.insert(with_bos.begin(), *tokenizer.bos());
    EXPECT_EQ(with_bos, expected.ids_special) << expected.text;
    EXPECT_EQ(Decode(tokenizer, expected.ids, true), expected.decoded);
    EXPECT_EQ(Decode(tokenizer, expected.ids_special, false), expected.decoded_skip_special);
  }
}

class HuggingFaceCases : public ::testing::TestWithParam<const char*> {};

TEST_P(HuggingFaceCases, EncodeAndDecodeAsStored) {
  SKIP_WITHOUT_SHARED(directory, std::string("tokenizers/") + GetParam());
  const auto tokenizer = LoadHuggingFaceTokenizer(ReadFile(directory + "/tokenizer.json"), "");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  ExpectCases(**tokenizer, ReadTokenizerCases(directory + "/cases.jsonl"));
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, HuggingFaceCases,
                         ::testing::Values("smollm2", "gpt-2", "llama-bpe", "qwen2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(GoldenTokenizer, DecodesToTheTextItEncoded) {
  const std::string directory = testing::GoldenPath("models/llama-tied-gqa");
  const auto tokenizer = LoadHuggingFaceTokenizer(ReadFile(directory + "/tokenizer.json"),
                                                  ReadFile(directory + "/tokenizer_config.json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  EXPECT_EQ((*tokenizer)->bos(), (*tokenizer)->FindToken("<|bos|>"));
  for (const std::string text :
       {"The quick brown fox, 1234 times.", "na\u00EFve \U0001F600\n\n  x"}) {
    const auto ids = (*tokenizer)->Encode(text, SpecialTokens::kAsText);
    ASSERT_TRUE(ids.ok());
    EXPECT_LT(ids->size(), text.size());
    EXPECT_EQ(Decode(**tokenizer, *ids, false), text);
  }
}

TEST(GgufCases, Gpt2EncodesAndDecodesAsStored) {
  SKIP_WITHOUT_SHARED(directory, "tokenizers/gpt-2");
  const auto file = GgufFile::Open(directory + "/vocab.gguf");
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  const auto tokenizer = LoadGgufTokenizer(*file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  ExpectCases(**tokenizer, ReadTokenizerCases(directory + "/cases.jsonl"));
}

TEST(GgufCases, DefaultModelEncodesAndDecodesAsStored) {
  SKIP_WITHOUT_MODEL(path);
  SKIP_WITHOUT_SHARED(cases, "tokenizers/smollm2/cases.jsonl");
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  const auto tokenizer = LoadGgufTokenizer(*file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  EXPECT_FALSE((*tokenizer)->adds_bos());
  ExpectCases(**tokenizer, ReadTokenizerCases(cases));
}

}  // namespace
}  // namespace muselet
