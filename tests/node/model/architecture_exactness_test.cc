// Every architecture, over its fixture: a row's result depends on nothing but its own sequence, on
// every level and with any number of threads.
#include <gtest/gtest.h>

#include <random>

#include "node/model/load_model.h"
#include "tests/node/cpu/random_data.h"
#include "tests/node/model/architecture_cases.h"
#include "tests/node/model/model_runner.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::ModelRunner;
using testing::Portion;
using testing::SameBits;
using testing::TestSequence;

class ArchitectureExactnessTest : public ::testing::TestWithParam<std::string> {};

std::unique_ptr<Model> Open(const std::string& path, uint32_t threads, IsaLevel isa) {
  EngineOptions options;
  options.cpu = {ActivationFormat::kFloat32, threads, isa};
  options.kv.bytes = 8 << 20;
  auto checkpoint = Checkpoint::Open(path);
  CHECK(checkpoint.ok(), checkpoint.status().message());
  auto model = LoadModel(std::move(checkpoint).value(), options, {});
  CHECK(model.ok(), model.status().message());
  return std::move(model).value();
}

std::vector<TokenId> Text(uint32_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = static_cast<TokenId>(random() % 512);
  return ids;
}

TEST_P(ArchitectureExactnessTest, ChunksLevelsAndThreadsDoNotChangeABit) {
  SKIP_WITHOUT_SHARED(path, "models/" + GetParam());
  const std::vector<TokenId> text = Text(90, 1);
  const auto plain = Open(path, 1, IsaLevel::kScalar);
  const std::vector<float> expected = ModelRunner(*plain).Score(text, 90);
  for (const uint32_t threads : {1U, 3U}) {
    const auto model = Open(path, threads, IsaLevel::kAuto);
    for (const uint32_t chunk : {1U, 7U, 90U})
      EXPECT_TRUE(SameBits(expected, ModelRunner(*model).Score(text, chunk)))
          << threads << " threads, chunks of " << chunk;
  }
}

// In every step each of 12 sequences computes one token or a chunk of its prompt; each row must
// equal the row of the sequence alone.
TEST_P(ArchitectureExactnessTest, SequencesTogetherEqualEachAlone) {
  SKIP_WITHOUT_SHARED(path, "models/" + GetParam());
  const auto model = Open(path, 2, IsaLevel::kAuto);
  const uint32_t vocab = model->info().vocab_size;
  ModelRunner runner(*model);
  std::vector<TestSequence> sequences;
  std::vector<std::vector<float>> alone;
  for (uint32_t i = 0; i < 12; ++i) {
    sequences.push_back({Text(20 + 5 * (i % 7), i), 0, {}});
    alone.push_back(runner.Score(sequences[i].ids, static_cast<uint32_t>(sequences[i].ids.size())));
  }
  for (TestSequence& sequence : sequences)
    sequence.blocks = runner.Start({}, static_cast<uint32_t>(sequence.ids.size())).blocks;
  for (uint32_t step = 0;; ++step) {
    std::vector<Portion> portions;
    for (uint32_t i = 0; i < sequences.size(); ++i) {
      const auto left = static_cast<uint32_t>(sequences[i].ids.size()) - sequences[i].computed;
      if (left > 0)
        portions.push_back({&sequences[i], std::min(left, (i + step) % 3 == 0 ? 9U : 1U)});
    }
    if (portions.empty()) break;
    const std::vector<float> logits = runner.Step(portions);
    auto at = logits.begin();
    for (const auto& [sequence, rows] : portions) {
      const std::vector<float>& whole = alone[static_cast<size_t>(sequence - sequences.data())];
      const auto from = whole.begin() + size_t{sequence->computed - rows} * vocab;
      ASSERT_TRUE(SameBits({at, at + size_t{rows} * vocab}, {from, from + size_t{rows} * vocab}));
      at += size_t{rows} * vocab;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ArchitectureExactnessTest,
                         ::testing::ValuesIn(testing::ArchitectureFolders()));

}  // namespace
}  // namespace muselet
