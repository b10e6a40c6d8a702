// Planning memory from a config alone, for models larger than the tests can run.
#include "node/model/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "node/cpu/cpu_ops.h"
#include "node/model/kv_cache.h"
#include "node/model/model_outline.h"
#include "node/model/model_planner.h"
#include "tests/node/model/model_files.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using testing::GoldenPath;
using ::testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

ModelOutline Outline(const std::string& name, std::optional<DType> weights = std::nullopt) {
  auto outline = ReadModelOutline(GoldenPath("configs/" + name + ".json"), weights);
  CHECK(outline.ok(), outline.status().message());
  return std::move(outline).value();
}

ShardPlan Whole(const ModelOutline& outline) {
  return MakeShardPlan(outline.config, outline.format, ShardSpec()).value();
}

double Billions(uint64_t bytes) {
  return static_cast<double>(bytes) / 1e9;
}

TEST(MemoryPlanTest, WeightsAreThoseOfThePublishedModels) {
  const auto weights = [](const ModelOutline& outline) {
    return Billions(WeightBytes(outline.config, outline.format, Whole(outline), 0));
  };
  EXPECT_NEAR(weights(Outline("dense-70b")), 2 * 70.55, 0.1);
  EXPECT_NEAR(weights(Outline("moe-235b")), 2 * 235.09, 0.1);
  // 27.85 billion with the embeddings.
  EXPECT_NEAR(weights(Outline("muse-glimmer-30b")), 2 * 27.85, 0.1);
  EXPECT_NEAR(weights(Outline("dense-70b", DType::kQ4_1)), 70.55 * 20 / 32, 0.1);
}

TEST(MemoryPlanTest, SequencesOfWindowedLayersStopGrowing) {
  const ModelOutline muse = Outline("muse-glimmer-30b");
  const RankShard rank = Whole(muse).ranks[0];
  const KvTokenBytes token = KvBytesPerToken(muse.config, rank, DType::kBF16);
  EXPECT_EQ(token.full, 13 * 1024U);
  EXPECT_EQ(token.full + token.windowed, 53248U);
  EXPECT_EQ(KvBytes(muse.config, rank, DType::kBF16, 1024), 1024 * 53248U);
  // 39 layers keep 2048 tokens and the block in which the window begins.
  EXPECT_EQ(KvBytes(muse.config, rank, DType::kBF16, 32768),
            (13 * 32768U + 39 * (2048U + 16U)) * 1024);
  const ModelOutline dense = Outline("dense-70b");
  EXPECT_EQ(KvBytesPerToken(dense.config, Whole(dense).ranks[0], DType::kF16).full, 327680U);
}

// The number of sequences that the plan says is the number that the cache has blocks for.
TEST(MemoryPlanTest, SequencesThatFitAreThoseThatTheCacheHolds) {
  ModelConfig config;
  config.vocab_size = 64;
  config.hidden_dim = 64;
  config.layers.resize(6);
  for (LayerSpec& layer : config.layers) {
    layer.query_heads = layer.kv_heads = 2;
    layer.head_dim = 16;
    layer.ffn_dim = 64;
    layer.rope.rotary_dim = 16;
  }
  const auto format = [](std::string_view) { return DType::kF32; };
  const auto ops = cpu::MakeCpuOps({ActivationFormat::kFloat32, 1, IsaLevel::kScalar});
  ASSERT_TRUE(ops.ok());
  for (const uint32_t windowed : {0U, 2U, 5U, 6U}) {  // layers
    for (uint32_t i = 0; i < windowed; ++i) config.layers[i].window_tokens = 100;
    for (const ShardSpec& spec : {ShardSpec(), ShardSpec{1, 3, {}}}) {
      const ShardPlan plan = MakeShardPlan(config, format, spec).value();
      const MemoryOptions options = {DType::kF32, 4000, 64, 3};
      std::vector<RankFootprint> memory;
      for (uint32_t rank = 0; rank < plan.rank_count(); ++rank) {
        memory.push_back(MemoryOf(config, format, plan, rank, options));
        memory.back().weights = memory.back().workspace = 0;
      }
      for (const uint64_t device_bytes : {3'000'000, 10'000'000, 40'000'001}) {
        const uint64_t fit = SequencesThatFit(memory, device_bytes);
        EngineOptions engine;
        engine.kv = {device_bytes, KvFormat::kFloat32};
        engine.batch.prefill_chunk_max = 64;
        const auto holds = [&](uint64_t sequences) {
          engine.batch.sequences_max = static_cast<uint32_t>(std::max<uint64_t>(3, sequences));
          const auto groups = KvGroups(config, plan, engine, **ops).value();
          return std::all_of(groups.begin(), groups.end(), [&](const KvGroupInfo& group) {
            // A window, a chunk, the block in which it begins, and one to grow into.
            const uint64_t blocks = group.window_tokens > 0 ? (100 + 64) / 16 + 1 + 2 : 250;
            return group.block_count >= sequences * blocks;
          });
        };
        EXPECT_TRUE(holds(fit)) << windowed << " layers, " << fit;
        EXPECT_FALSE(holds(fit + 1)) << windowed << " layers, " << fit;
      }
    }
  }
}

// Layers without a window have the room that windows cannot use.
TEST(MemoryPlanTest, WindowsDoNotTakeTheRoomOfOtherLayers) {
  const ModelOutline muse = Outline("muse-glimmer-30b");
  const auto ops = cpu::MakeCpuOps({ActivationFormat::kFloat32, 1, IsaLevel::kScalar});
  ASSERT_TRUE(ops.ok());
  EngineOptions engine;
  engine.kv = {8 * kGiB, KvFormat::kFloat16};
  engine.batch.sequences_max = 4;
  const ShardPlan plan = Whole(muse);
  const auto groups = KvGroups(muse.config, plan, engine, **ops).value();
  ASSERT_EQ(groups.size(), 2U);
  for (const KvGroupInfo& group : groups) {
    if (group.window_tokens > 0) {
      EXPECT_EQ(group.block_count, 4 * ((2048 + 256) / 16 + 1 + 1));
    } else {
      EXPECT_GT(group.block_count, 8 * kGiB / (16 * 53248) * 3);
    }
  }
  const uint64_t bytes = KvBlockBytes(muse.config, plan.ranks[0], groups, DType::kF16, **ops);
  EXPECT_LE(bytes, 8 * kGiB);
  EXPECT_GT(bytes, 8 * kGiB - (1 << 20));
}

TEST(MemoryPlanTest, TensorSizesOfLargeModels) {
  const auto sizes = [](const ModelOutline& outline) {
    return TensorSizesThatFit(outline.config, outline.format);
  };
  EXPECT_THAT(sizes(Outline("dense-70b")), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(sizes(Outline("moe-235b")), ElementsAre(1, 2, 3, 4, 8));
  EXPECT_THAT(sizes(Outline("muse-glimmer-30b")), ElementsAre(1, 2, 4, 8));
}

// The smallest layout really fits, and none of fewer ranks does.
TEST(MemoryPlanTest, FindsTheSmallestLayoutThatFits) {
  const std::pair<const char*, uint32_t> expected[] = {
      {"muse-glimmer-30b", 1}, {"dense-70b", 2}, {"moe-235b", 6}};
  for (const auto& [name, ranks] : expected) {
    const ModelOutline outline = Outline(name);
    const MemoryOptions options = {DType::kF16, 8192, 512, 64};
    const auto spec = SmallestThatFits(outline.config, outline.format, options, 80 * kGiB);
    ASSERT_TRUE(spec.has_value()) << name;
    EXPECT_EQ(spec->tensor * spec->pipeline, ranks) << name;
    const ShardPlan plan = MakeShardPlan(outline.config, outline.format, *spec).value();
    std::vector<RankFootprint> memory;
    for (uint32_t rank = 0; rank < plan.rank_count(); ++rank) {
      memory.push_back(MemoryOf(outline.config, outline.format, plan, rank, options));
      EXPECT_LE(memory.back().weights + memory.back().workspace + memory.back().kv_sequence,
                80 * kGiB);
    }
    EXPECT_GE(SequencesThatFit(memory, 80 * kGiB), 1U);
  }
  const ModelOutline outline = Outline("dense-70b");
  EXPECT_FALSE(SmallestThatFits(outline.config, outline.format, {DType::kF16, 8192, 512, 64}, 1000)
                   .has_value());
}

TEST(ModelPlannerTest, SaysWhatEachRankHoldsAndWhatFits) {
  PlanRequest request;
  request.path = GoldenPath("configs/dense-70b.json");
  request.spec = {4, 2, {}};
  request.device_bytes = 24 * kGiB;
  request.context_tokens = 4096;
  const auto text = PlanText(request);
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_THAT(*text, HasSubstr("tensor 4 x pipeline 2, digest "));
  EXPECT_THAT(*text, HasSubstr("sequences of 4096 tokens fit on devices of 24.0 GiB"));
  const auto json = ParseJson(PlanJson(request).value());
  ASSERT_TRUE(json.ok());
  ASSERT_EQ((*json)["ranks"].size(), 8U);
  EXPECT_EQ((*json)["ranks"][1]["query_heads"], Json({16, 32}));
  EXPECT_GT((*json)["sequences"], 0);

  request.spec = {1, 1, {}};
  EXPECT_THAT(PlanText(request).value(),
              HasSubstr("does not fit on devices of 24.0 GiB; the smallest layout that does: "));
  request.any_layout = true;
  EXPECT_THAT(PlanText(request).value(), HasSubstr(" fit on devices of 24.0 GiB"));
  request.device_bytes = 1000;
  EXPECT_EQ(PlanText(request).status().code(), StatusCode::kResourceExhausted);
}

TEST(ModelPlannerTest, SaysWhichExpertsEachRankHolds) {
  PlanRequest request;
  request.path = GoldenPath("configs/moe-235b.json");
  request.spec = {4, 1, {}};
  EXPECT_THAT(PlanText(request).value(), HasSubstr(" e96-127 "));
  const auto json = ParseJson(PlanJson(request).value());
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["ranks"][1]["experts"], Json({32, 64}));
}

TEST(ModelPlannerTest, RefusesWhatItCannotPlan) {
  PlanRequest request;
  request.path = GoldenPath("configs/dense-70b.json");
  request.spec = {9, 1, {}};
  EXPECT_THAT(std::string(PlanText(request).status().message()),
              HasSubstr("sizes that fit: 1, 2, 3, 4, 5, 6, 7, 8"));
  request.spec = {};
  request.context_tokens = 1 << 30;
  EXPECT_EQ(PlanText(request).status().code(), StatusCode::kInvalidArgument);

  const testing::TempDir directory;
  const auto refused = [&](const std::string& json) {
    testing::WriteBytes(directory.Path("config.json"), json);
    return std::string(ReadModelOutline(directory.path(), std::nullopt).status().message());
  };
  EXPECT_THAT(refused("{}"), HasSubstr("config.json: vocab_size: "));
  EXPECT_THAT(refused("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(refused(R"({"kv_lora_rank": 512})"), HasSubstr("cannot be planned for"));
  EXPECT_THAT(refused(R"({"vocab_size": 99, "hidden_size": 64, "max_position_embeddings": 9,
                          "num_attention_heads": 4, "num_key_value_heads": 3})"),
              HasSubstr("num_key_value_heads: does not divide"));
}

}  // namespace
}  // namespace muselet
