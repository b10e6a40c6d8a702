// Which rank holds what.
#include "node/model/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "node/model/memory_plan.h"
#include "node/model/stage_balance.h"
#include "tests/node/model/random_checkpoint.h"
#include "tests/node/model/sharded_model.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::RandomCheckpoint;
using testing::RandomModelShape;

// As SmolLM2: 30 layers, 9 query and 3 key/value heads of 64, 1536 feed-forward columns.
ModelConfig SmallModel() {
  ModelConfig config;
  config.vocab_size = 49152;
  config.hidden_dim = 576;
  config.tied_embeddings = true;
  LayerSpec layer;
  layer.query_heads = 9;
  layer.kv_heads = 3;
  layer.head_dim = 64;
  layer.ffn_dim = 1536;
  config.layers.assign(30, layer);
  return config;
}

DType SmallFormat(std::string_view name) {
  return name == "embedding" ? DType::kQ8_0 : DType::kQ4_1;
}

Result<ShardPlan> Plan(const ModelConfig& config, const ShardSpec& spec) {
  return MakeShardPlan(config, SmallFormat, spec);
}

uint32_t Heads(const LayerShard& shard) {
  uint32_t heads = 0;
  for (const AttentionPart& part : shard.attention) heads += part.query_heads;
  return heads;
}

std::string Refusal(const ModelConfig& config, const ShardSpec& spec) {
  const auto plan = Plan(config, spec);
  EXPECT_EQ(plan.status().code(), StatusCode::kInvalidArgument);
  return std::string(plan.status().message());
}

TEST(ShardPlanTest, GroupsNeedNotBeEven) {
  const ShardPlan two = Plan(SmallModel(), {2, 1, {}}).value();
  EXPECT_EQ(Heads(two.ranks[0].layers[0]), 6U);
  EXPECT_EQ(Heads(two.ranks[1].layers[0]), 3U);
  EXPECT_EQ(two.ranks[1].layers[0].attention[0].kv_begin, 2U);
  EXPECT_EQ(two.ranks[1].layers[0].feed_forward[0].column_begin, 768U);
  const ShardPlan three = Plan(SmallModel(), {3, 1, {}}).value();
  for (const RankShard& rank : three.ranks) {
    EXPECT_EQ(Heads(rank.layers[7]), 3U);
    EXPECT_EQ(rank.vocab_rows(), 16384U);
  }
  // 8 feed-forward groups over 3: (0 1) and (2), (3) and (4 5), (6 7).
  EXPECT_EQ(three.ranks[0].layers[0].feed_forward.size(), 2U);
  EXPECT_EQ(three.ranks[1].layers[0].feed_forward.size(), 2U);
  EXPECT_EQ(three.ranks[2].layers[0].feed_forward.size(), 1U);
}

TEST(ShardPlanTest, KeyValueHeadsAreReplicatedWhereQueryHeadsDivide) {
  ModelConfig config = SmallModel();
  for (LayerSpec& layer : config.layers) {
    layer.query_heads = 8;
    layer.kv_heads = 2;
  }
  const ShardPlan plan = Plan(config, {4, 1, {}}).value();
  for (uint32_t rank = 0; rank < 4; ++rank) {
    const std::vector<AttentionPart>& parts = plan.ranks[rank].layers[0].attention;
    ASSERT_EQ(parts.size(), 1U);
    EXPECT_EQ(parts[0].query_begin, 2 * rank);
    EXPECT_EQ(parts[0].query_heads, 2U);
    EXPECT_EQ(parts[0].kv_begin, rank / 2);
    EXPECT_EQ(parts[0].kv_heads, 1U);
  }
}

// Every row, head and column once, whatever the layout.
TEST(ShardPlanTest, RanksHoldEverythingOnce) {
  const ModelConfig config = SmallModel();
  for (const uint32_t tensor : {1U, 2U, 3U}) {
    for (const uint32_t pipeline : {1U, 2U, 7U, 30U}) {
      const ShardPlan plan = Plan(config, {tensor, pipeline, {}}).value();
      std::vector<uint32_t> heads(30), columns(30);
      uint32_t rows = 0;
      for (const RankShard& rank : plan.ranks) {
        rows += rank.vocab_rows();
        EXPECT_EQ(rank.first_stage, rank.stage == 0);
        for (size_t i = 0; i < rank.layers.size(); ++i) {
          heads[rank.layer_begin + i] += Heads(rank.layers[i]);
          for (const FeedForwardPart& part : rank.layers[i].feed_forward)
            columns[rank.layer_begin + i] += part.columns;
        }
      }
      EXPECT_EQ(rows, config.vocab_size);
      EXPECT_EQ(heads, std::vector<uint32_t>(30, 9));
      EXPECT_EQ(columns, std::vector<uint32_t>(30, 1536));
    }
  }
}

TEST(ShardPlanTest, RefusesWhatDoesNotFitAndNamesWhatDoes) {
  EXPECT_THAT(Refusal(SmallModel(), {4, 1, {}}),
              HasSubstr("9 query heads over 3 key/value heads and 8 feed-forward groups of 192 "
                        "columns cannot be divided over 4 ranks; sizes that fit: 1, 2, 3"));
  EXPECT_THAT(Refusal(SmallModel(), {100000, 1, {}}), HasSubstr("sizes that fit: 1, 2, 3"));
  EXPECT_THAT(Refusal(SmallModel(), {1, 31, {}}), HasSubstr("the model has only 30 layers"));
  EXPECT_THAT(Refusal(SmallModel(), {0, 1, {}}), HasSubstr("at least 1"));
  EXPECT_THAT(Refusal(SmallModel(), {1, 2, {10, 19}}), HasSubstr("29 layers in all (10 + 19)"));
  EXPECT_THAT(Refusal(SmallModel(), {1, 2, {30}}), HasSubstr("layers of 1 stages are given"));
  EXPECT_THAT(Refusal(SmallModel(), {1, 2, {30, 0}}), HasSubstr("at least one"));
  // Quantised columns are cut at whole blocks only: 96 are 3 blocks of 32.
  ModelConfig narrow = SmallModel();
  for (LayerSpec& layer : narrow.layers) layer.ffn_dim = 96;
  EXPECT_THAT(Refusal(narrow, {2, 1, {}}), HasSubstr("sizes that fit: 1"));
}

TEST(ShardPlanTest, StagesAreBalancedWithTheHead) {
  const auto stages = [](const ShardPlan& plan) {
    std::vector<uint32_t> layers;
    for (const RankShard& rank : plan.ranks) layers.push_back(rank.layer_end - rank.layer_begin);
    return layers;
  };
  const ModelConfig config = SmallModel();
  EXPECT_THAT(stages(Plan(config, {1, 2, {}}).value()), ElementsAre(20, 10));
  EXPECT_THAT(stages(Plan(config, {1, 3, {3, 26, 1}}).value()), ElementsAre(3, 26, 1));
  EXPECT_THAT(BalanceStages({1, 1, 1, 1, 1, 1}, 0, 3), ElementsAre(2, 2, 2));
  EXPECT_THAT(BalanceStages({1, 1, 1, 1, 1, 1}, 2, 2), ElementsAre(4, 2));
  EXPECT_THAT(BalanceStages({1, 1, 1, 1, 1}, 100, 2), ElementsAre(4, 1));
  EXPECT_THAT(BalanceStages({5, 1, 1, 1}, 0, 3), ElementsAre(1, 2, 1));
  EXPECT_THAT(BalanceStages({1, 1, 1}, 0, 3), ElementsAre(1, 1, 1));
  EXPECT_THAT(BalanceStages({1, 9, 1, 1, 1, 1}, 0, 2), ElementsAre(2, 4));
}

TEST(ShardPlanTest, DigestNamesThePlan) {
  std::set<std::string> digests;
  const ModelConfig config = SmallModel();
  const std::vector<ShardSpec> specs = {{1, 1, {}},       {2, 1, {}},       {1, 2, {}},
                                        {1, 2, {15, 15}}, {1, 2, {16, 14}}, {2, 2, {}}};
  for (const ShardSpec& spec : specs) digests.insert(Plan(config, spec).value().Digest());
  EXPECT_EQ(digests.size(), specs.size());
  EXPECT_EQ(Plan(config, {2, 2, {}}).value().Digest(), Plan(config, {2, 2, {}}).value().Digest());
}

TEST(ShardPlanTest, SubtreesAndTheirSumAreThoseOfTheWhole) {
  EXPECT_THAT(CompleteSubtrees({0, 3}, 8), ElementsAre(SegmentRange{0, 2}, SegmentRange{2, 3}));
  EXPECT_THAT(CompleteSubtrees({3, 6}, 8), ElementsAre(SegmentRange{3, 4}, SegmentRange{4, 6}));
  EXPECT_THAT(CompleteSubtrees({0, 3}, 3), ElementsAre(SegmentRange{0, 3}));
  EXPECT_THAT(CompleteSubtrees({4, 7}, 7), ElementsAre(SegmentRange{4, 7}));
  EXPECT_THAT(SumOrder({{0, 1}, {1, 2}, {2, 3}, {3, 4}}, 4), ElementsAre(0, 1, 0, 2));
  EXPECT_THAT(SumOrder({{0, 2}, {2, 3}}, 3), ElementsAre(0, 1));
  EXPECT_THAT(SumOrder({{0, 2}, {2, 3}, {3, 4}, {4, 6}, {6, 8}}, 8), ElementsAre(0, 0, 2, 0, 2));
  EXPECT_THAT(SumOrder({{0, 4}, {4, 5}}, 5), ElementsAre(0, 1));
}

// What is said before loading is what loading then takes.
TEST(ShardPlanTest, BytesAreThoseOfTheLoadedRanks) {
  for (const DType dtype : {DType::kQ4_1, DType::kQ6_K, DType::kBF16}) {
    for (const bool tied : {true, false}) {
      const auto checkpoint = std::make_shared<RandomCheckpoint>(
          RandomModelShape{.dtype = dtype, .layers = 3, .tied = tied, .biases = tied});
      EngineOptions options;
      options.kv.bytes = 1 << 20;
      for (const ShardSpec& spec : {ShardSpec{}, ShardSpec{2, 1, {}}, ShardSpec{2, 2, {}}}) {
        testing::ShardedModel model(checkpoint, options, spec);
        for (uint32_t rank = 0; rank < model.plan().rank_count(); ++rank)
          EXPECT_EQ(WeightBytes(checkpoint->config(), FormatsOf(*checkpoint), model.plan(), rank),
                    model.rank(rank).info().weight_bytes)
              << Traits(dtype).name << " rank " << rank;
      }
    }
  }
}

TEST(ShardPlanTest, TheDefaultModelHalvesWell) {
  SKIP_WITHOUT_MODEL(path);
  const auto checkpoint = Checkpoint::Open(path).value();
  const WeightFormat format = FormatsOf(*checkpoint);
  const auto bytes = [&](const ShardSpec& spec, uint32_t rank) {
    return WeightBytes(checkpoint->config(), format, MakeShardPlan(*checkpoint, spec).value(),
                       rank);
  };
  const uint64_t whole = bytes({}, 0);
  for (const uint32_t rank : {0U, 1U}) EXPECT_LE(bytes({1, 2, {}}, rank), whole * 55 / 100);
}

}  // namespace
}  // namespace muselet
