// A checkpoint's text side: what loads, and that every fault is one line that names the file and
// the field.
#include "node/text/text_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/json.h"
#include "node/model/gguf.h"
#include "tests/node/model/model_files.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::WriteBytes;
namespace fs = std::filesystem;

class TextModelTest : public ::testing::Test {
 protected:
  TextModelTest() : model_(dir_.Path("tiny")) {
    fs::copy(testing::GoldenPath("models/llama-tied-gqa"), model_);
    tokenizer_ = *ParseJson(testing::ReadBytes(model_ + "/tokenizer.json"));
  }
  static Result<std::shared_ptr<const TextModel>> Load(const std::string& path) {
    ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(path));
    return LoadTextModel(*checkpoint);
  }
  static std::string Fault(const std::string& path) {
    const auto text = Load(path);
    EXPECT_EQ(text.status().message().find('\n'), std::string::npos) << text.status().message();
    return text.ok() ? "accepted" : text.status().message();
  }
  // The fault after tokenizer.json is changed; without the path, which it must begin with.
  std::string TokenizerFault(const std::string& text) {
    const std::string path = model_ + "/tokenizer.json";
    WriteBytes(path, text);
    const std::string fault = Fault(model_);
    EXPECT_THAT(fault, StartsWith(path + ": "));
    return fault.substr(std::min(fault.size(), path.size() + 2));
  }
  std::string TokenizerFault(const std::string& pointer, const Json& value) {
    Json changed = tokenizer_;
    changed[Json::json_pointer(pointer)] = value;
    return TokenizerFault(changed.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  testing::TempDir dir_;
  std::string model_;
  Json tokenizer_;
};

TEST_F(TextModelTest, LoadsTokenizerTemplateAndTokens) {
  const auto text = Load(model_);
  ASSERT_TRUE(text.ok()) << text.status().message();
  ASSERT_NE((*text)->tokenizer, nullptr);
  ASSERT_NE((*text)->chat_template, nullptr);
  EXPECT_EQ((*text)->bos_token, "<|bos|>");
  EXPECT_EQ((*text)->eos_token, "<|eos|>");
  ChatTemplateInput input;
  input.messages = Json::array({{{"role", "user"}, {"content", "hi"}}});
  input.bos_token = (*text)->bos_token;
  EXPECT_EQ((*text)->chat_template->Render(input)->text, "<|bos|><|user|>hi<|end|><|assistant|>");
}

TEST_F(TextModelTest, ADirectoryWithoutTokenizerServesIdsOnly) {
  fs::remove(model_ + "/tokenizer.json");
  const auto text = Load(model_);
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_EQ((*text)->tokenizer, nullptr);
  EXPECT_EQ((*text)->chat_template, nullptr);
}

TEST_F(TextModelTest, GgufAndDirectoryGiveTheSameIds) {
  const auto a = Load(model_);
  const auto b = Load(testing::GoldenPath("gguf/llama-tied-gqa.F16.gguf"));
  ASSERT_TRUE(a.ok() && b.ok()) << a.status().message() << b.status().message();
  EXPECT_EQ((*a)->tokenizer->vocab_size(), (*b)->tokenizer->vocab_size());
  const std::string prompt = "<|bos|>The quick brown fox<|end|>";
  EXPECT_EQ(*(*a)->tokenizer->Encode(prompt, SpecialTokens::kParse),
            *(*b)->tokenizer->Encode(prompt, SpecialTokens::kParse));
}

// What the model has rows for and the tokenizer no name: as transformers and vLLM have it.
TEST_F(TextModelTest, RowsPastTheTokenizerAreTokensWithoutText) {
  Json config = *ParseJson(testing::ReadBytes(model_ + "/config.json"));
  Json shorter = tokenizer_;
  Json vocab = Json::object();
  for (const auto& [piece, id] : tokenizer_["model"]["vocab"].items()) {
    if (id < 500) vocab[piece] = id;
  }
  shorter["model"]["vocab"] = vocab;
  Json merges = Json::array();
  for (const Json& merge : tokenizer_["model"]["merges"]) {
    const std::string joined = merge.is_array()
                                   ? std::string(merge[0]) + std::string(merge[1])
                                   : std::string(merge).erase(std::string(merge).find(' '), 1);
    if (vocab.contains(joined)) merges.push_back(merge);
  }
  shorter["model"]["merges"] = merges;
  WriteBytes(model_ + "/tokenizer.json", WriteJson(shorter));
  const auto text = Load(model_);
  ASSERT_TRUE(text.ok()) << text.status().message();
  const Tokenizer& tokenizer = *(*text)->tokenizer;
  EXPECT_EQ(tokenizer.vocab_size(), 500U);
  for (const TokenId id : {500, 511, 100'000}) {
    EXPECT_EQ(tokenizer.TokenBytes(id), "");
    EXPECT_EQ(tokenizer.TokenText(id), "");
    EXPECT_FALSE(tokenizer.IsControl(id));
  }
}

TEST_F(TextModelTest, TokensPastTheEmbeddingAreRefused) {
  Json changed = tokenizer_;
  changed["added_tokens"].push_back(
      {{"id", 512}, {"content", "<|one too\nmany|>"}, {"special", true}});
  EXPECT_EQ(TokenizerFault(WriteJson(changed)),
            "model.vocab: token \"<|one too?many|>\" has id 512, but the model's vocab_size is "
            "512; take the tokenizer that belongs to these weights");
}

TEST_F(TextModelTest, EveryTokenizerFaultNamesFileAndField) {
  EXPECT_THAT(TokenizerFault("{"), HasSubstr("not valid JSON at byte "));
  EXPECT_EQ(TokenizerFault("[]"), "expected an object");
  EXPECT_EQ(TokenizerFault("{}"), "model: missing or not an object");
  EXPECT_THAT(TokenizerFault(WriteJson(tokenizer_) + std::string(1, '\0')), HasSubstr("NUL byte"));
  EXPECT_THAT(TokenizerFault(R"({"a":1,"a":2})"), HasSubstr("duplicate key \"a\""));
  EXPECT_THAT(TokenizerFault(std::string(100, '[')), HasSubstr("nested deeper than 64"));
  const std::pair<std::string, Json> lies[] = {
      {"/model", 7},
      {"/model/type", "Uni\ngram"},
      {"/model/vocab", 7},
      {"/model/vocab", Json::object()},
      {"/model/vocab/a\n\x01", -1},
      {"/model/vocab/zz", {1}},
      {"/model/vocab/zz", 0},
      {"/model/vocab/zz", 100'000'000},
      {"/model/merges/3", 7},
      {"/model/merges/3", "a"},
      {"/model/merges/3", {"a", "b", "c"}},
      {"/model/merges/3", {"nowhere", "\n"}},
      {"/model/dropout", 0.5},
      {"/model/unk_token", "no\nsuch"},
      {"/model/ignore_merges", 1},
      {"/normalizer", {{"type", "Low\tercase"}}},
      {"/normalizer", {{"type", "Sequence"}}},
      {"/pre_tokenizer", {{"type", "Meta\nspace"}}},
      {"/pre_tokenizer", nullptr},
      {"/post_processor", {{"type", "Roberta\nProcessing"}}},
      {"/added_tokens", 7},
      {"/added_tokens/0", 7},
      {"/added_tokens/0/id", -1},
      {"/added_tokens/0/id", 99'999'999},
      {"/added_tokens/0/content", ""},
      {"/added_tokens/0/content", 7},
      {"/added_tokens/0/special", "yes"},
  };
  for (const auto& [pointer, lie] : lies) {
    // "/model/merges/3" is spelled model.merges[3], "/model/vocab/x" model.vocab: "x".
    std::string field = pointer.substr(1);
    const size_t slash = field.find('/');
    if (field.starts_with("model/")) {
      field = "model" + (field.size() > slash ? "." + field.substr(slash + 1) : "");
      field = field.substr(0, field.find('/'));
    } else {
      field = field.substr(0, slash);
    }
    const std::string fault = TokenizerFault(pointer, lie);
    const bool of_model = fault.starts_with("model: ") && pointer.starts_with("/model/");
    EXPECT_TRUE(fault.starts_with(field) || of_model) << pointer << " = " << lie << ": " << fault;
  }
  EXPECT_THAT(TokenizerFault("/model/merges/3", {"nowhere", "\n"}),
              StartsWith("model.merges[3]: \"nowhere\" is not in the vocabulary"));
}

TEST_F(TextModelTest, PatternsThatDoNotCompileAreNamed) {
  const Json bad = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "(\n"}}}, {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}}}}};
  EXPECT_THAT(TokenizerFault("/pre_tokenizer", bad),
              StartsWith("pre_tokenizer: pattern \"(?\" does not compile"));
}

TEST_F(TextModelTest, TemplateFaultsNameWhereTheTemplateStands) {
  WriteBytes(model_ + "/tokenizer_config.json", R"({"chat_template":"a\n{% if %}"})");
  EXPECT_THAT(Fault(model_),
              StartsWith(model_ + "/tokenizer_config.json: chat_template: line 2: "));
  WriteBytes(model_ + "/chat_template.jinja", "{{ 'a\nb' 'c\nd' ");
  EXPECT_THAT(Fault(model_), StartsWith(model_ + "/chat_template.jinja: line "));
  WriteBytes(model_ + "/chat_template.jinja", "{{ \x01 }}");
  EXPECT_THAT(Fault(model_), StartsWith(model_ + "/chat_template.jinja: line 1: unexpected char"));
  WriteBytes(model_ + "/chat_template.jinja", "\xFF");
  EXPECT_THAT(Fault(model_), StartsWith(model_ + "/chat_template.jinja: "));
  WriteBytes(model_ + "/tokenizer_config.json", "{");
  EXPECT_THAT(Fault(model_), StartsWith(model_ + "/tokenizer_config.json: "));
}

TEST_F(TextModelTest, GgufFaultsNameFileAndKey) {
  const std::string path = dir_.Path("m.gguf");
  const auto fault = [&](const auto& change) {
    testing::GgufWriter file = testing::TinyLlama();
    change(file);
    WriteBytes(path, file.Finish());
    const std::string text = Fault(path);
    EXPECT_THAT(text, StartsWith(path + ": tokenizer."));
    return text;
  };
  const auto bpe = [](testing::GgufWriter& file) { file.String("tokenizer.ggml.model", "gpt2"); };
  EXPECT_THAT(fault([](auto& f) { f.String("tokenizer.ggml.model", "ll\nama"); }),
              HasSubstr(": tokenizer.ggml.model: \"ll?ama\" is not supported"));
  EXPECT_THAT(fault([](auto& f) { f.U32("tokenizer.ggml.model", 7); }),
              HasSubstr(": tokenizer.ggml.model: expected a string"));
  EXPECT_THAT(fault(bpe), HasSubstr(": tokenizer.ggml.merges: missing"));
  EXPECT_THAT(fault([&](auto& f) {
                bpe(f);
                f.String("tokenizer.ggml.pre", "\x1B[31m");
              }),
              HasSubstr(": tokenizer.ggml.pre: \"?[31m\" is not supported"));
  EXPECT_THAT(fault([&](auto& f) {
                bpe(f);
                f.Strings("tokenizer.ggml.merges", {"a b"});
              }),
              HasSubstr(": tokenizer.ggml.merges[0]: \"ab\" is not in the vocabulary"));
  EXPECT_THAT(fault([&](auto& f) {
                bpe(f);
                f.Strings("tokenizer.ggml.merges", {"ab"});
              }),
              HasSubstr(": tokenizer.ggml.merges[0]: expected two tokens"));
  EXPECT_THAT(fault([&](auto& f) {
                bpe(f);
                f.Strings("tokenizer.ggml.merges", {});
                f.U32("tokenizer.ggml.bos_token_id", 4);
              }),
              HasSubstr(": tokenizer.ggml.bos_token_id: 4 is not in the vocabulary"));
  EXPECT_THAT(fault([&](auto& f) {
                bpe(f);
                f.Strings("tokenizer.ggml.merges", {});
                f.String("tokenizer.chat_template", "{% for %}");
              }),
              HasSubstr(": tokenizer.chat_template: line 1: "));
}

}  // namespace
}  // namespace muselet
