// Properties of the forward pass that hold for every format and level: a row's result depends on
// nothing but its own sequence.
#include "node/model/transformer.h"

#include <gtest/gtest.h>

#include "node/cpu/cpu_ops.h"
#include "node/cpu/isa.h"
#include "tests/node/model/model_runner.h"
#include "tests/node/model/random_checkpoint.h"
#include "tests/node/model/row_count_ops.h"

namespace muselet {
namespace {

using testing::kMatrixDTypes;
using testing::ModelRunner;
using testing::Portion;
using testing::RandomCheckpoint;
using testing::RandomModelShape;
using testing::SameBits;
using testing::TestSequence;

EngineOptions Options(ActivationFormat activations, uint32_t threads = 2,
                      IsaLevel isa = IsaLevel::kAuto) {
  EngineOptions options;
  options.cpu = {activations, threads, isa};
  options.kv.bytes = 8 << 20;
  return options;
}

std::unique_ptr<Model> Make(const RandomModelShape& shape, const EngineOptions& options) {
  auto model = LoadModel(std::make_shared<RandomCheckpoint>(shape), options, {});
  CHECK(model.ok(), model.status().message());
  return std::move(model).value();
}

std::vector<TokenId> Text(uint32_t count, uint32_t seed, uint32_t vocab = 131) {
  std::mt19937 random(seed);
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = static_cast<TokenId>(random() % vocab);
  return ids;
}

// Every matrix format with both kinds of activations.
std::vector<std::pair<DType, ActivationFormat>> Modes() {
  std::vector<std::pair<DType, ActivationFormat>> modes;
  for (const DType dtype : kMatrixDTypes)
    for (const auto activations : {ActivationFormat::kInt8, ActivationFormat::kFloat32})
      modes.emplace_back(dtype, activations);
  return modes;
}

TEST(TransformerTest, ChunksOfThePromptDoNotChangeABit) {
  const std::vector<TokenId> text = Text(150, 1);
  for (const auto& [dtype, activations] : Modes()) {
    const auto model = Make({.dtype = dtype}, Options(activations));
    ModelRunner runner(*model);
    const std::vector<float> whole = runner.Score(text, 150);
    for (const uint32_t chunk : {1U, 7U, 64U})
      EXPECT_TRUE(SameBits(whole, runner.Score(text, chunk)))
          << model->info().numerics_id << " in chunks of " << chunk;
  }
}

// Crosses the borders of attention chunks (256 positions).
TEST(TransformerTest, LongSequencesDoNotDependOnChunks) {
  for (const uint32_t window : {0U, 300U}) {
    const auto model =
        Make({.layers = 1, .window_tokens = window}, Options(ActivationFormat::kInt8));
    ModelRunner runner(*model);
    const std::vector<TokenId> text = Text(700, 2);
    const std::vector<float> whole = runner.Score(text, 512);
    // Large steps share out rows and heads, small ones chunks of positions.
    for (const uint32_t chunk : {129U, 3U})
      EXPECT_TRUE(SameBits(whole, runner.Score(text, chunk))) << "window " << window;
  }
}

// 32 sequences of different lengths; in every step each computes one token or a chunk of its
// prompt. Each row must equal the row of the sequence alone.
bool BatchEqualsAlone(Model& model) {
  ModelRunner runner(model);
  std::vector<TestSequence> sequences;
  std::vector<std::vector<float>> alone;
  for (uint32_t i = 0; i < 32; ++i) {
    const std::vector<TokenId> text = Text(3 + 5 * (i % 7), i);
    alone.push_back(runner.Score(text, static_cast<uint32_t>(text.size())));
    sequences.push_back({text, 0, {}});
  }
  for (TestSequence& sequence : sequences) {
    const auto size = static_cast<uint32_t>(sequence.ids.size());
    sequence.blocks = runner.Start({}, size).blocks;
  }
  const uint32_t vocab = model.info().vocab_size;
  for (uint32_t step = 0;; ++step) {
    std::vector<Portion> portions;
    for (uint32_t i = 0; i < sequences.size(); ++i) {
      const auto left = static_cast<uint32_t>(sequences[i].ids.size()) - sequences[i].computed;
      if (left > 0)
        portions.push_back({&sequences[i], std::min(left, (i + step) % 3 == 0 ? 5U : 1U)});
    }
    if (portions.empty()) return true;
    const std::vector<float> logits = runner.Step(portions);
    size_t at = 0;
    for (const auto& [sequence, rows] : portions) {
      const auto& expected = alone[static_cast<size_t>(sequence - sequences.data())];
      const size_t first = size_t{sequence->computed - rows} * vocab;
      const size_t count = size_t{rows} * vocab;
      if (std::memcmp(logits.data() + at, expected.data() + first, count * sizeof(float)) != 0)
        return false;
      at += count;
    }
  }
}

TEST(TransformerTest, ThirtyTwoSequencesTogetherEqualEachAlone) {
  for (const auto& [dtype, activations] : Modes()) {
    const auto model = Make({.dtype = dtype}, Options(activations));
    EXPECT_TRUE(BatchEqualsAlone(*model)) << model->info().numerics_id;
  }
}

TEST(TransformerTest, ExpertsGiveTheSameBitsForAnyRowsLevelAndThreads) {
  const std::vector<TokenId> text = Text(40, 3);
  for (const auto& [dtype, activations] : Modes()) {
    RandomModelShape shape = {.dtype = dtype, .layers = 1, .ffn = 256};
    shape.experts = 9;
    shape.experts_active = 2;
    const auto scalar = Make(shape, Options(activations, 1, IsaLevel::kScalar));
    const std::vector<float> expected = ModelRunner(*scalar).Score(text, 40);
    const auto model = Make(shape, Options(activations, 3));
    for (const uint32_t chunk : {1U, 40U})
      EXPECT_TRUE(SameBits(expected, ModelRunner(*model).Score(text, chunk)))
          << model->info().numerics_id << ", chunks of " << chunk;
    if (dtype == DType::kQ4_1 || dtype == DType::kBF16) {
      EXPECT_TRUE(BatchEqualsAlone(*model)) << model->info().numerics_id;
    }
  }
}

TEST(TransformerTest, LevelsAndThreadsGiveTheSameBits) {
  const std::vector<TokenId> text = Text(40, 3);
  for (const auto& [dtype, activations] : Modes()) {
    RandomModelShape shape = {.dtype = dtype, .tied = false, .biases = true};
    shape.rope = dtype == DType::kF32 ? RopeLayout::kInterleaved : RopeLayout::kHalves;
    const auto scalar = Make(shape, Options(activations, 1, IsaLevel::kScalar));
    const std::vector<float> expected = ModelRunner(*scalar).Score(text, 40);
    for (const uint32_t threads : {1U, 3U}) {
      const auto model = Make(shape, Options(activations, threads));
      EXPECT_TRUE(SameBits(expected, ModelRunner(*model).Score(text, 40)))
          << model->info().numerics_id << " with " << threads << " threads";
      EXPECT_EQ(model->info().numerics_id, scalar->info().numerics_id);
    }
  }
}

// Blocks computed for one sequence serve another with the same beginning: a prefix-cache hit.
TEST(TransformerTest, SharedPrefixBlocksGiveTheBitsOfRecomputing) {
  const auto model = Make({}, Options(ActivationFormat::kInt8));
  ModelRunner runner(*model);
  std::vector<TokenId> text = Text(60, 4);
  TestSequence first = runner.Start(text, 60);
  runner.Step({{&first, 60}});
  for (size_t i = 48; i < text.size(); ++i) text[i] = (text[i] + 1) % 131;
  TestSequence second = runner.Start(text, 60);
  std::copy_n(first.blocks.begin(), 3, second.blocks.begin());
  second.computed = 48;
  const std::vector<float> hit = runner.Step({{&second, 12}});
  const std::vector<float> cold = runner.Score(text, 60);
  EXPECT_TRUE(SameBits(hit, {cold.begin() + 48 * 131, cold.end()}));
}

TEST(TransformerTest, AnOpWhoseOrderDependsOnTheRowsIsNoticed) {
  for (const auto activations : {ActivationFormat::kInt8, ActivationFormat::kFloat32}) {
    const EngineOptions options = Options(activations);
    auto ops = cpu::MakeCpuOps(options.cpu);
    ASSERT_TRUE(ops.ok());
    auto planted = std::make_unique<testing::RowCountDependentOps>(std::move(ops).value(), 16);
    const RandomCheckpoint checkpoint({});
    const auto model = Transformer::Create(checkpoint, options, std::move(planted), {});
    ASSERT_TRUE(model.ok()) << model.status().message();
    EXPECT_FALSE(BatchEqualsAlone(**model));
  }
}

TEST(TransformerTest, NamesWhatItReallyComputesWith) {
  const auto id = [](DType dtype, ActivationFormat activations, KvFormat kv) {
    EngineOptions options = Options(activations);
    options.kv.format = kv;
    return Make({.dtype = dtype}, options)->info().numerics_id;
  };
  EXPECT_EQ(id(DType::kQ4_1, ActivationFormat::kInt8, KvFormat::kAuto),
            "cpu/lanes8-v2/q4_1/int8/kv-f16/strict");
  EXPECT_EQ(id(DType::kQ4_1, ActivationFormat::kFloat32, KvFormat::kAuto),
            "cpu/lanes8-v2/q4_1/f32/kv-f32/strict");
  EXPECT_EQ(id(DType::kBF16, ActivationFormat::kInt8, KvFormat::kFloat32),
            "cpu/lanes8-v2/bf16/f32/kv-f32/strict");
}

TEST(TransformerTest, InfoCountsBlocksAndParameters) {
  EngineOptions options = Options(ActivationFormat::kInt8);
  options.context_tokens = 100;
  const auto model = Make({}, options);
  const ModelInfo& info = model->info();
  EXPECT_EQ(info.context_tokens, 100U);
  ASSERT_EQ(info.kv_groups.size(), 1U);
  // 2 layers x keys and values x 2 heads x 32 x 16 positions x 2 bytes.
  EXPECT_EQ(info.kv_groups[0].block_count, (8U << 20) / (2 * 2 * 2 * 32 * 16 * 2));
  EXPECT_LE(info.kv_bytes, 8U << 20);
  const uint64_t layer = 256 * (256 + 64 + 64 + 256) + 3 * 256 * 512 + 2 * 256;
  EXPECT_EQ(info.parameter_count, 131 * 256 + 256 + 2 * layer);
}

StatusCode LoadFault(RandomCheckpoint checkpoint, const EngineOptions& options) {
  return LoadModel(std::make_shared<RandomCheckpoint>(std::move(checkpoint)), options, {})
      .status()
      .code();
}

TEST(TransformerTest, RefusesWhatItCannotCompute) {
  const EngineOptions options = Options(ActivationFormat::kInt8);
  RandomCheckpoint wrong_shape({});
  wrong_shape.AddMatrix("layers.1.up", DType::kQ4_1, 480, 256);
  EXPECT_EQ(LoadFault(std::move(wrong_shape), options), StatusCode::kInvalidArgument);
  RandomCheckpoint missing({});
  missing.Remove("layers.0.k");
  EXPECT_EQ(LoadFault(std::move(missing), options), StatusCode::kNotFound);
  RandomCheckpoint uneven({});
  uneven.config().layers[0].kv_heads = 3;
  EXPECT_EQ(LoadFault(std::move(uneven), options), StatusCode::kInvalidArgument);
  EngineOptions small = options;
  small.kv.bytes = 1000;
  EXPECT_EQ(LoadFault(RandomCheckpoint({}), small), StatusCode::kResourceExhausted);
  EngineOptions level = options;
  level.cpu.isa = IsaLevel::kAvx512;
  if (!cpu::SelectKernels(level.cpu.isa).ok()) {
    EXPECT_EQ(LoadFault(RandomCheckpoint({}), level), StatusCode::kUnavailable);
  }
}

TEST(WeightsTest, SegmentsDependOnTheModelOnly) {
  EXPECT_EQ(SegmentCount(576, 3, DType::kQ4_1),
            3U);  // SmolLM2's output projection: 3 groups of 192
  EXPECT_EQ(SegmentCount(1536, 8, DType::kQ4_1), 8U);  // and its feed-forward
  EXPECT_EQ(SegmentCount(192, 8, DType::kQ4_1), 2U);   // 8 would cut blocks of 32
  EXPECT_EQ(SegmentCount(64, 2, DType::kQ4_1), 2U);
  EXPECT_EQ(SegmentCount(48, 3, DType::kQ4_1), 1U);
  EXPECT_EQ(SegmentCount(128 * 64, 128, DType::kQ4_1), 64U);
}

}  // namespace
}  // namespace muselet
