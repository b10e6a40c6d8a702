// Small checkpoints of every architecture and file format against the logits that transformers
// computed.
#include <gtest/gtest.h>

#include "base/json.h"
#include "base/mapped_file.h"
#include "node/model/load_model.h"
#include "tests/node/model/architecture_cases.h"
#include "tests/node/model/model_runner.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::Best;
using testing::ModelRunner;
using testing::TestSequence;

Json ReadExpected(const std::string& path) {
  const auto text = ReadFile(path, 16 << 20);
  CHECK(text.ok(), text.status().message());
  auto json = ParseJson(*text);
  CHECK(json.ok(), json.status().message());
  return std::move(json).value();
}

std::unique_ptr<Model> Open(const std::string& path, IsaLevel isa) {
  EngineOptions options;
  options.cpu = {ActivationFormat::kFloat32, 2, isa};
  options.kv.bytes = 4 << 20;
  auto checkpoint = Checkpoint::Open(path);
  CHECK(checkpoint.ok(), checkpoint.status().message());
  auto model = LoadModel(std::move(checkpoint).value(), options, {});
  CHECK(model.ok(), model.status().message());
  return std::move(model).value();
}

// Stored rows within 1e-3 of the file's standard deviation, and the greedy continuation equal.
void ExpectAnswers(Model& model, const Json& expected, const std::string& name) {
  const double tolerance = 1e-3 * expected["logit_std"].get<double>();
  const uint32_t vocab = model.info().vocab_size;
  for (const Json& prompt : expected["prompts"]) {
    ModelRunner runner(model);
    const auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const std::vector<float> logits = runner.Score(ids, static_cast<uint32_t>(ids.size()));
    double worst = 0.0;
    for (const Json& row : prompt["logits"]) {
      const auto values = row["values"].get<std::vector<float>>();
      ASSERT_EQ(values.size(), vocab);
      const float* actual = logits.data() + row["position"].get<size_t>() * vocab;
      for (uint32_t i = 0; i < vocab; ++i)
        worst = std::max(worst, std::fabs(static_cast<double>(actual[i]) - values[i]));
    }
    EXPECT_LE(worst, tolerance) << name;

    const auto greedy = prompt["greedy"]["ids"].get<std::vector<TokenId>>();
    TestSequence sequence = runner.Start(ids, static_cast<uint32_t>(ids.size() + greedy.size()));
    std::vector<TokenId> picked;
    uint32_t rows = static_cast<uint32_t>(ids.size());
    while (picked.size() < greedy.size()) {
      picked.push_back(Best(runner.LastRow(runner.Step({{&sequence, rows}}))));
      sequence.ids.push_back(picked.back());
      rows = 1;
    }
    EXPECT_EQ(picked, greedy) << name;
  }
}

class ExpectedLogitsTest : public ::testing::TestWithParam<std::string> {};
class GgufLogitsTest : public ExpectedLogitsTest {};

TEST_P(ExpectedLogitsTest, OfADirectoryAreThoseOfTheReference) {
  SKIP_WITHOUT_SHARED(path, "models/" + GetParam());
  const Json expected = ReadExpected(path + "/expected.json");
  for (const IsaLevel isa : {IsaLevel::kAuto, IsaLevel::kScalar})
    ExpectAnswers(*Open(path, isa), expected, GetParam());
}
INSTANTIATE_TEST_SUITE_P(Models, ExpectedLogitsTest,
                         ::testing::ValuesIn(testing::ArchitectureFolders()));
INSTANTIATE_TEST_SUITE_P(ScaledRope, ExpectedLogitsTest, ::testing::Values("llama3-ropescaled"));

TEST_P(GgufLogitsTest, OfAFileAreThoseOfTheReference) {
  SKIP_WITHOUT_SHARED(path, "gguf/" + GetParam() + ".gguf");
  SKIP_WITHOUT_SHARED(answers, "gguf/expected.json");
  const Json expected = ReadExpected(answers);
  for (const IsaLevel isa : {IsaLevel::kAuto, IsaLevel::kScalar})
    ExpectAnswers(*Open(path, isa), expected["files"][GetParam() + ".gguf"], GetParam());
}
INSTANTIATE_TEST_SUITE_P(Files, GgufLogitsTest,
                         ::testing::Values("llama-tied-gqa.F32", "llama-tied-gqa.F16",
                                           "llama-tied-gqa.BF16", "llama-tied-gqa.Q8_0",
                                           "llama-tied-gqa.Q4_0", "llama-tied-gqa.Q4_1",
                                           "llama-tied-gqa.Q5_0", "llama-tied-gqa.Q5_1",
                                           "llama-k256.Q6_K", "llama-k256.Q4_0",
                                           "llama-k256.Q4_K_M", "llama-k256.Q5_K_M"));

// Each architecture as llama.cpp lays it out; tests/golden/make_gguf_models.py made the files.
class GgufArchitectureTest : public ExpectedLogitsTest {};

TEST_P(GgufArchitectureTest, AnswersAreThoseOfTheReference) {
  const std::string name = GetParam() + ".gguf";
  Json answers = ReadExpected(testing::GoldenPath("gguf/answers.json"))["files"];
  answers.update(ReadExpected(testing::GoldenPath("gguf/expected.json"))["files"]);
  ASSERT_TRUE(answers.contains(name));
  for (const IsaLevel isa : {IsaLevel::kAuto, IsaLevel::kScalar})
    ExpectAnswers(*Open(testing::GoldenPath("gguf/" + name), isa), answers[name], name);
}
INSTANTIATE_TEST_SUITE_P(Files, GgufArchitectureTest,
                         ::testing::ValuesIn(testing::ArchitectureGgufFiles()));

// One checkpoint in three files; its answers are those of the same weights in one.
TEST(ShardedFilesTest, AnswersAreThoseOfTheReference) {
  const Json expected = ReadExpected(testing::GoldenPath("gguf/answers.json"));
  const auto model = Open(testing::GoldenPath("sharded/qwen2-bias"), IsaLevel::kAuto);
  ExpectAnswers(*model, expected["files"]["qwen2-bias.BF16.gguf"], "sharded qwen2-bias");
}

}  // namespace
}  // namespace muselet
