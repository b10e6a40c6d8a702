// The real model against the answers that transformers computed from the same file.
#include <gtest/gtest.h>

#include "base/json.h"
#include "base/mapped_file.h"
#include "node/model/load_model.h"
#include "tests/node/model/model_runner.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::Best;
using testing::LogProbability;
using testing::ModelRunner;
using testing::Portion;
using testing::SharedPath;
using testing::TestSequence;

std::unique_ptr<Model> Open(const std::string& path, ActivationFormat activations) {
  EngineOptions options;
  options.cpu.activations = activations;
  options.kv.bytes = 128 << 20;
  auto checkpoint = Checkpoint::Open(path);
  CHECK(checkpoint.ok(), checkpoint.status().message());
  auto model = LoadModel(std::move(checkpoint).value(), options, {});
  CHECK(model.ok(), model.status().message());
  return std::move(model).value();
}

Json ReadExpected(const std::string& path) {
  const auto text = ReadFile(path, 16 << 20);
  CHECK(text.ok(), text.status().message());
  auto json = ParseJson(*text);
  CHECK(json.ok(), json.status().message());
  return std::move(json).value();
}

// One prompt of the file, under way.
struct Decode {
  std::vector<TokenId> greedy;  // stored
  std::vector<double> margins;
  Json top5;
  TestSequence sequence;
  std::vector<TokenId> picked;
};

std::vector<Decode> StartAll(const Json& expected, ModelRunner& runner) {
  std::vector<Decode> decodes;
  for (const Json& prompt : expected["prompts"]) {
    Decode decode;
    decode.greedy = prompt["greedy"].get<std::vector<TokenId>>();
    decode.margins = prompt["margins"].get<std::vector<double>>();
    decode.top5 = prompt["top5"];
    const auto ids = prompt["ids"].get<std::vector<TokenId>>();
    decode.sequence = runner.Start(ids, static_cast<uint32_t>(ids.size() + 64));
    decodes.push_back(std::move(decode));
  }
  return decodes;
}

// Feeds the stored continuation to all prompts at once, and calls check(decode, step, row) with the
// logits of every step.
template <typename Check>
void DecodeStored(ModelRunner& runner, std::vector<Decode>& decodes, uint32_t vocab,
                  const Check& check) {
  for (size_t step = 0; step < 64; ++step) {
    std::vector<Portion> portions;
    for (Decode& decode : decodes) {
      TestSequence& sequence = decode.sequence;
      portions.push_back(
          {&sequence, static_cast<uint32_t>(sequence.ids.size()) - sequence.computed});
    }
    const std::vector<float> logits = runner.Step(portions);
    size_t end = 0;
    for (size_t i = 0; i < decodes.size(); ++i) {
      end += size_t{portions[i].rows} * vocab;
      check(decodes[i], step,
            std::vector<float>(logits.begin() + end - vocab, logits.begin() + end));
      decodes[i].sequence.ids.push_back(decodes[i].greedy[step]);
    }
  }
}

TEST(SmolLm2Test, FloatActivationsGiveTheStoredAnswers) {
  SKIP_WITHOUT_MODEL(path);
  SKIP_WITHOUT_SHARED(answers, "smollm2/expected.json");
  const auto model = Open(path, ActivationFormat::kFloat32);
  ModelRunner runner(*model);
  std::vector<Decode> decodes = StartAll(ReadExpected(answers), runner);
  ASSERT_EQ(decodes.size(), 12U);
  double worst = 0.0;
  DecodeStored(runner, decodes, model->info().vocab_size,
               [&](Decode& decode, size_t step, const std::vector<float>& row) {
                 decode.picked.push_back(Best(row));
                 for (const Json& entry : decode.top5[step]) {
                   const double actual =
                       LogProbability(row.data(), row.size(), entry[0].get<TokenId>());
                   worst = std::max(worst, std::fabs(actual - entry[1].get<double>()));
                 }
               });
  EXPECT_LE(worst, 1e-2);
  for (const Decode& decode : decodes) EXPECT_EQ(decode.picked, decode.greedy);
}

TEST(SmolLm2Test, Int8ActivationsAgreeWhereTheMarginIsClear) {
  SKIP_WITHOUT_MODEL(path);
  SKIP_WITHOUT_SHARED(answers, "smollm2/expected.json");
  const auto model = Open(path, ActivationFormat::kInt8);
  ModelRunner runner(*model);
  std::vector<Decode> decodes = StartAll(ReadExpected(answers), runner);
  size_t clear = 0;
  DecodeStored(runner, decodes, model->info().vocab_size,
               [&](Decode& decode, size_t step, const std::vector<float>& row) {
                 if (decode.margins[step] < 0.5) return;
                 ++clear;
                 EXPECT_EQ(Best(row), decode.greedy[step]) << "margin " << decode.margins[step];
               });
  EXPECT_GT(clear, 300U);
}

TEST(SmolLm2Test, Int8ActivationsKeepThePassagesLikelihood) {
  SKIP_WITHOUT_MODEL(path);
  SKIP_WITHOUT_SHARED(answers, "smollm2/expected.json");
  const Json passage = ReadExpected(answers)["passage"];
  const auto ids = passage["ids"].get<std::vector<TokenId>>();
  const auto model = Open(path, ActivationFormat::kInt8);
  const uint32_t vocab = model->info().vocab_size;
  const std::vector<float> logits = ModelRunner(*model).Score(ids, 256);
  double nll = 0.0;
  for (size_t i = 1; i < ids.size(); ++i)
    nll -= LogProbability(logits.data() + (i - 1) * vocab, vocab, ids[i]);
  nll /= static_cast<double>(ids.size() - 1);
  EXPECT_NEAR(nll / passage["mean_nll"].get<double>(), 1.0, 0.005);
}

TEST(SmolLm2Test, ReadyQuicklyAndSmall) {
  SKIP_WITHOUT_MODEL(path);
  const auto model = Open(path, ActivationFormat::kInt8);
  EXPECT_EQ(model->info().parameter_count, 134515008U);
  EXPECT_LT(model->info().weight_bytes, 120U << 20);
  EXPECT_EQ(model->info().vocab_size, 49152U);
}

}  // namespace
}  // namespace muselet
