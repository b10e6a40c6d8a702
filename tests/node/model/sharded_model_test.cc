// Sharded over ranks in every way, a model gives the very bits that it gives whole.
#include "tests/node/model/sharded_model.h"

#include <gtest/gtest.h>

#include <thread>

#include "comms/rank_group_makers.h"
#include "node/model/memory_plan.h"
#include "tests/node/model/architecture_cases.h"
#include "tests/node/model/model_runner.h"
#include "tests/node/model/random_checkpoint.h"
#include "tests/node/model/row_count_ops.h"
#include "tests/support/fixtures.h"
#include "tests/support/shared_rendezvous.h"

namespace muselet {
namespace {

using testing::ModelRunner;
using testing::Portion;
using testing::RandomCheckpoint;
using testing::RandomModelShape;
using testing::SameBits;
using testing::ShardedModel;
using testing::TestSequence;

EngineOptions Options(ActivationFormat activations) {
  EngineOptions options;
  options.cpu = {activations, 1, IsaLevel::kAuto};
  options.kv.bytes = 8 << 20;
  options.batch.step_tokens_max = 32;
  options.batch.sequences_max = 8;
  return options;
}

std::unique_ptr<Model> Whole(std::shared_ptr<const Checkpoint> checkpoint,
                             const EngineOptions& options) {
  auto model = LoadModel(std::move(checkpoint), options, {});
  CHECK(model.ok(), model.status().message());
  return std::move(model).value();
}

std::vector<TokenId> Text(uint32_t count, uint32_t seed, uint32_t vocab) {
  std::mt19937 random(seed);
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = static_cast<TokenId>(random() % vocab);
  return ids;
}

// The logits of `sequences` texts of up to `longest` tokens under mixed load: in every step some
// compute one token, others a chunk of their prompt.
std::vector<float> Play(Model& model, uint32_t sequences, uint32_t longest) {
  ModelRunner runner(model);
  std::vector<TestSequence> texts;
  for (uint32_t i = 0; i < sequences; ++i) {
    const uint32_t count = longest - i * longest / (2 * sequences);
    texts.push_back(runner.Start(Text(count, i, model.info().vocab_size), count));
  }
  std::vector<float> logits;
  for (uint32_t step = 0;; ++step) {
    std::vector<Portion> portions;
    for (uint32_t i = 0; i < texts.size(); ++i) {
      const auto left = static_cast<uint32_t>(texts[i].ids.size()) - texts[i].computed;
      if (left > 0) portions.push_back({&texts[i], std::min(left, (i + step) % 3 == 0 ? 7U : 1U)});
    }
    if (portions.empty()) return logits;
    const std::vector<float> part = runner.Step(portions);
    logits.insert(logits.end(), part.begin(), part.end());
  }
}

struct Layout {
  uint32_t tensor;
  uint32_t pipeline;
};

void ExpectWholesBits(const std::shared_ptr<const Checkpoint>& checkpoint,
                      const EngineOptions& options, const std::vector<Layout>& layouts,
                      uint32_t sequences, uint32_t longest) {
  const auto whole = Whole(checkpoint, options);
  const std::vector<float> expected = Play(*whole, sequences, longest);
  for (const auto& [tensor, pipeline] : layouts) {
    ShardedModel sharded(checkpoint, options, {tensor, pipeline, {}});
    EXPECT_TRUE(SameBits(expected, Play(sharded, sequences, longest)))
        << whole->info().numerics_id << ", tensor " << tensor << ", pipeline " << pipeline;
    EXPECT_EQ(sharded.info().numerics_id, whole->info().numerics_id);
    EXPECT_EQ(sharded.info().model_digest, whole->info().model_digest);
    EXPECT_EQ(sharded.info().parameter_count, whole->info().parameter_count);
  }
}

// Counts what is allocated.
class CountingOps final : public testing::RowCountDependentOps {
 public:
  CountingOps(std::unique_ptr<Ops> ops, uint64_t& bytes)
      : RowCountDependentOps(std::move(ops), UINT32_MAX), bytes_(bytes) {}
  Result<DeviceBuffer> Allocate(size_t bytes) override {
    bytes_ += bytes;
    return RowCountDependentOps::Allocate(bytes);
  }

 private:
  uint64_t& bytes_;
};

// What ranks are planned to take is what they take.
void ExpectPlannedMemory(const std::shared_ptr<const Checkpoint>& checkpoint,
                         const EngineOptions& options) {
  const ModelConfig& config = checkpoint->config();
  for (const ShardSpec& spec : {ShardSpec{}, ShardSpec{2, 1, {}}, ShardSpec{2, 2, {}}}) {
    std::vector<uint64_t> bytes(size_t{spec.tensor} * spec.pipeline);
    ShardedModel sharded(checkpoint, options, spec, [&](std::unique_ptr<Ops> ops, uint32_t rank) {
      return std::make_unique<CountingOps>(std::move(ops), bytes[rank]);
    });
    for (uint32_t rank = 0; rank < bytes.size(); ++rank) {
      const ShardPlan& plan = sharded.plan();
      const ModelInfo& info = sharded.rank(rank).info();
      const uint64_t planned = WorkspaceBytes(config, plan, rank, options.batch.step_tokens_max,
                                              options.batch.sequences_max);
      const uint64_t kernels = KernelBytes(config, plan.ranks[rank], options.batch.step_tokens_max);
      EXPECT_EQ(planned - kernels, bytes[rank] - info.kv_bytes)
          << "rank " << rank << " of " << bytes.size();
      EXPECT_EQ(WeightBytes(config, FormatsOf(*checkpoint), plan, rank), info.weight_bytes)
          << "rank " << rank << " of " << bytes.size();
    }
  }
}

void ExpectFixtureShards(const std::string& path) {
  auto opened = Checkpoint::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const std::shared_ptr<const Checkpoint> checkpoint = std::move(opened).value();
  std::vector<Layout> layouts = {{1, 2}, {1, 3}, {1, 4}};
  for (const uint32_t tensor : TensorSizesThatFit(checkpoint->config(), FormatsOf(*checkpoint)))
    for (const uint32_t pipeline : {1U, 2U})
      if (tensor > 1) layouts.push_back({tensor, pipeline});
  ASSERT_GE(layouts.size(), 5U) << "no tensor size fits";
  ExpectWholesBits(checkpoint, Options(ActivationFormat::kFloat32), layouts, 6, 40);
  ExpectPlannedMemory(checkpoint, Options(ActivationFormat::kFloat32));
}

class ShardedFixtureTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ShardedFixtureTest, GivesTheWholesBits) {
  SKIP_WITHOUT_SHARED(path, "models/" + GetParam());
  ExpectFixtureShards(path);
}
INSTANTIATE_TEST_SUITE_P(Models, ShardedFixtureTest,
                         ::testing::ValuesIn(testing::ArchitectureFolders()));
INSTANTIATE_TEST_SUITE_P(ScaledRope, ShardedFixtureTest, ::testing::Values("llama3-ropescaled"));

// The same architectures out of GGUF, where experts and fused projections share a tensor.
TEST(ShardedModelTest, GgufArchitecturesGiveTheWholesBits) {
  for (const std::string& name : testing::ArchitectureGgufFiles()) {
    auto opened = Checkpoint::Open(testing::GoldenPath("gguf/" + name + ".gguf"));
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    ExpectWholesBits(std::move(opened).value(), Options(ActivationFormat::kFloat32),
                     {{1, 2}, {2, 1}, {2, 2}}, 3, 30);
  }
}

// Every format, uneven groups (5 key/value heads over 2, 3 and 4 ranks), biases, windows.
TEST(ShardedModelTest, EveryFormatGivesTheWholesBits) {
  for (const DType dtype : testing::kMatrixDTypes) {
    for (const auto activations : {ActivationFormat::kInt8, ActivationFormat::kFloat32}) {
      RandomModelShape shape = {.dtype = dtype, .layers = 3, .query_heads = 10, .kv_heads = 5};
      shape.head_dim = Traits(dtype).block_values > 32 ? 256 : 32;
      shape.tied = dtype == DType::kQ8_0;
      shape.biases = dtype == DType::kQ4_1;
      shape.window_tokens = dtype == DType::kQ4_0 ? 9 : 0;
      ExpectWholesBits(std::make_shared<RandomCheckpoint>(shape), Options(activations),
                       {{2, 1}, {3, 1}, {4, 2}, {5, 1}, {1, 3}}, 3, 20);
    }
  }
}

// Runs of experts that do not divide evenly over 3 ranks, in every format.
TEST(ShardedModelTest, ExpertsGiveTheWholesBits) {
  for (const DType dtype : testing::kMatrixDTypes) {
    for (const auto activations : {ActivationFormat::kInt8, ActivationFormat::kFloat32}) {
      RandomModelShape shape = {.dtype = dtype, .layers = 2, .query_heads = 6, .kv_heads = 6};
      shape.head_dim = Traits(dtype).block_values > 32 ? 256 : 32;
      shape.ffn = 256;
      shape.experts = 14;
      shape.experts_active = 3;
      ExpectWholesBits(std::make_shared<RandomCheckpoint>(shape), Options(activations),
                       {{2, 1}, {3, 2}, {6, 1}}, 3, 20);
    }
  }
}

// One key/value head, eight query heads: the head is on every rank.
TEST(ShardedModelTest, ReplicatedKeyValueHeadsGiveTheWholesBits) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(
      RandomModelShape{.query_heads = 8, .kv_heads = 1, .biases = true});
  ExpectWholesBits(checkpoint, Options(ActivationFormat::kInt8), {{2, 1}, {4, 1}, {8, 2}}, 3, 20);
}

// Layers with a window have fewer blocks than those without; how many changes no bit.
TEST(ShardedModelTest, LayersWithAndWithoutAWindowGiveTheWholesBits) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(
      RandomModelShape{.hidden = 64, .layers = 4, .query_heads = 4, .kv_heads = 2, .ffn = 128});
  for (const size_t layer : {0U, 2U, 3U}) checkpoint->config().layers[layer].window_tokens = 20;
  EngineOptions options = Options(ActivationFormat::kInt8);
  options.batch.sequences_max = 2;
  ExpectWholesBits(checkpoint, options, {{2, 1}, {1, 3}, {2, 2}}, 2, 80);
  const auto few = Whole(checkpoint, options);
  ASSERT_EQ(few->info().kv_groups.size(), 2U);
  EXPECT_LT(few->info().kv_groups[0].block_count, few->info().kv_groups[1].block_count);
  options.batch.sequences_max = 1000;
  const auto many = Whole(checkpoint, options);
  EXPECT_EQ(many->info().kv_groups[0].block_count, many->info().kv_groups[1].block_count);
  EXPECT_TRUE(SameBits(Play(*few, 2, 80), Play(*many, 2, 80)));
}

// What a large model is cut like, in small: four stages of many layers, quantised, tied and untied.
TEST(ShardedModelTest, DeepNarrowModelGivesTheWholesBitsThroughFourStages) {
  for (const bool tied : {true, false}) {
    RandomModelShape shape = {.dtype = DType::kQ8_0, .vocab = 509, .hidden = 64, .layers = 94};
    shape.query_heads = 4;
    shape.kv_heads = 2;
    shape.ffn = 256;
    shape.tied = tied;
    ExpectWholesBits(std::make_shared<RandomCheckpoint>(shape), Options(ActivationFormat::kInt8),
                     {{1, 4}, {2, 4}}, 3, 16);
  }
}

TEST(ShardedModelTest, SmolLm2GivesTheWholesBits) {
  SKIP_WITHOUT_MODEL(path);
  auto opened = Checkpoint::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const std::shared_ptr<const Checkpoint> checkpoint = std::move(opened).value();
  ExpectWholesBits(checkpoint, Options(ActivationFormat::kInt8),
                   {{2, 1}, {3, 1}, {1, 2}, {1, 3}, {1, 4}, {2, 2}, {3, 2}}, 3, 14);
}

// Positions beyond the chunk in which attention adds (256), where chunks are merged.
TEST(ShardedModelTest, LongTextsGiveTheWholesBits) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(
      RandomModelShape{.hidden = 64, .query_heads = 4, .kv_heads = 2, .ffn = 128});
  ExpectWholesBits(checkpoint, Options(ActivationFormat::kInt8), {{2, 2}}, 2, 300);
}

// What does not fit into one message goes in several: here about three rows each.
TEST(ShardedModelTest, ManyMessagesGiveTheWholesBits) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(RandomModelShape{
      .vocab = 1031, .layers = 3, .query_heads = 10, .kv_heads = 5, .biases = true});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  const std::vector<float> expected = Play(*Whole(checkpoint, options), 4, 30);
  for (const ShardSpec& spec : {ShardSpec{2, 1, {}}, ShardSpec{3, 2, {}}, ShardSpec{1, 3, {}}}) {
    ShardedModel sharded(checkpoint, options, spec, nullptr, 7000);
    EXPECT_TRUE(SameBits(expected, Play(sharded, 4, 30)))
        << "tensor " << spec.tensor << ", pipeline " << spec.pipeline;
  }
}

// Ranks run ahead of one another: plans are handed out without waiting for their results.
TEST(ShardedModelTest, PlansInFlightGiveTheBitsOfPlansOneByOne) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(RandomModelShape{.layers = 4});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  ShardedModel sharded(checkpoint, options, {2, 3, {}});
  const auto whole = Whole(checkpoint, options);
  std::vector<StepPlan> plans;
  const std::vector<TokenId> text = Text(24, 7, 131);
  for (uint32_t i = 0; i < 24; ++i) {
    StepPlan plan;
    plan.number = i + 1;
    for (uint32_t slot = 0; slot < 2; ++slot) {
      SequenceSlice slice = {slot, i, slot, 1, 1, true, {2 * slot}, {2}};
      plan.tokens.push_back(text[(i + slot) % 24]);
      plan.slices.push_back(slice);
      plan.block_tables.insert(plan.block_tables.end(), {2 * slot + 1, 2 * slot + 2});
    }
    plans.push_back(plan);
  }
  const auto together = sharded.Run(plans);
  ASSERT_TRUE(together.ok()) << together.status().message();
  for (size_t i = 0; i < plans.size(); ++i) {
    const auto alone = whole->Forward(plans[i]);
    ASSERT_TRUE(alone.ok());
    EXPECT_TRUE(SameBits({alone->begin(), alone->end()}, (*together)[i])) << "plan " << i;
  }
}

using MemberMaker =
    std::function<Result<std::unique_ptr<RankGroup>>(const RankGroupSpec&, RankRendezvous&)>;

// The members of a group, made as processes make them.
std::vector<std::unique_ptr<RankGroup>> MakeMembers(const std::string& name, uint32_t size,
                                                    const MemberMaker& make) {
  testing::SharedRendezvous rendezvous;
  std::vector<std::unique_ptr<RankGroup>> members(size);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      RankGroupSpec spec;
      spec.name = name;
      spec.rank = rank;
      spec.size = size;
      spec.message_bytes_max = RankModel::kMessageBytesMax;
      spec.deadline_us = Clock::Real().NowUs() + 60'000'000;
      auto group = make(spec, rendezvous);
      CHECK(group.ok(), group.status().message());
      members[rank] = std::move(group).value();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return members;
}

std::vector<std::unique_ptr<RankGroup>> SharedMemoryGroups(const std::string& name, uint32_t size) {
  return MakeMembers(name, size, MakeSharedMemoryGroup);
}

std::vector<std::unique_ptr<RankGroup>> GlooGroups(const std::string& name, uint32_t size) {
  return MakeMembers(name, size, [](const RankGroupSpec& spec, RankRendezvous& rendezvous) {
    return MakeGlooGroup(spec, "127.0.0.1", rendezvous);
  });
}

TEST(ShardedModelTest, SharedMemoryGroupsGiveTheWholesBits) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(
      RandomModelShape{.layers = 3, .query_heads = 10, .kv_heads = 5, .tied = false});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  ShardedModel sharded(checkpoint, options, {3, 2, {}});
  sharded.Connect(SharedMemoryGroups);
  EXPECT_TRUE(SameBits(Play(*Whole(checkpoint, options), 4, 30), Play(sharded, 4, 30)));
}

// A stage goes on to the next plan while its residual waits in the link: both of two plans are
// computed here before the next stage is asked for anything.
TEST(ShardedModelTest, AStageDoesNotWaitForTheNext) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(RandomModelShape{});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  const auto whole = Whole(checkpoint, options);
  for (const auto& groups : {SharedMemoryGroups, GlooGroups}) {
    ShardedModel sharded(checkpoint, options, {1, 2, {}});
    sharded.Connect(groups);
    std::vector<StepPlan> plans(2);
    for (uint32_t i = 0; i < 2; ++i) {
      plans[i].tokens = Text(32, i, 131);
      plans[i].slices.push_back({i, 0, 0, 32, 1, true, {0}, {2}});
      plans[i].block_tables = {2 * i, 2 * i + 1};
    }
    for (size_t rank = 0; rank < 2; ++rank)
      sharded.rank(rank).SetDeadline(Clock::Real().NowUs() + 60'000'000);
    for (const StepPlan& plan : plans) ASSERT_TRUE(sharded.rank(0).Forward(plan).ok());
    for (const StepPlan& plan : plans) {
      const auto alone = whole->Forward(plan);
      const auto logits = sharded.rank(1).Forward(plan);
      ASSERT_TRUE(alone.ok() && logits.ok());
      EXPECT_TRUE(SameBits({alone->begin(), alone->end()}, {logits->begin(), logits->end()}));
    }
  }
}

TEST(ShardedModelTest, LayersByHandGiveTheWholesBits) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(RandomModelShape{.layers = 5});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  ShardedModel sharded(checkpoint, options, {1, 3, {3, 1, 1}});
  EXPECT_TRUE(SameBits(Play(*Whole(checkpoint, options), 3, 20), Play(sharded, 3, 20)));
}

// Two faults of which tests must take notice: partial sums added in the order in which they come,
// and the bias added by every rank to its own part.
class InOrderOps final : public testing::RowCountDependentOps {
 public:
  explicit InOrderOps(std::unique_ptr<Ops> ops)
      : RowCountDependentOps(std::move(ops), UINT32_MAX) {}
  void AddPartials(std::span<const PartialSum> parts, const float* bias, Rows out) override {
    std::vector<PartialSum> chain(parts.begin(), parts.end());
    for (size_t i = 0; i < chain.size(); ++i) chain[i].additions = i > 0 ? 1 : 0;
    RowCountDependentOps::AddPartials(chain, bias, out);
  }
};

class BiasOfEachPartOps final : public testing::RowCountDependentOps {
 public:
  explicit BiasOfEachPartOps(std::unique_ptr<Ops> ops)
      : RowCountDependentOps(std::move(ops), UINT32_MAX) {}
  void AddPartials(std::span<const PartialSum> parts, const float* bias, Rows out) override {
    RowCountDependentOps::AddPartials(parts, bias, out);
    for (size_t part = 1; part < parts.size() && bias != nullptr; ++part)
      for (uint32_t row = 0; row < out.count; ++row)
        for (uint32_t i = 0; i < out.width; ++i) out.row(row)[i] += bias[i];
  }
};

TEST(ShardedModelTest, AnotherOrderOfPartialSumsIsNoticed) {
  const auto checkpoint =
      std::make_shared<RandomCheckpoint>(RandomModelShape{.query_heads = 8, .kv_heads = 4});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  const auto all = [](std::unique_ptr<Ops> ops, uint32_t) -> std::unique_ptr<Ops> {
    return std::make_unique<InOrderOps>(std::move(ops));
  };
  const auto one = [](std::unique_ptr<Ops> ops, uint32_t rank) -> std::unique_ptr<Ops> {
    if (rank != 0) return ops;
    return std::make_unique<InOrderOps>(std::move(ops));
  };
  const std::vector<float> expected = Play(*Whole(checkpoint, options), 3, 20);
  for (const ShardedModel::OpsWrapper& wrap : {ShardedModel::OpsWrapper(all), {one}}) {
    ShardedModel sharded(checkpoint, options, {4, 1, {}}, wrap);
    EXPECT_FALSE(SameBits(expected, Play(sharded, 3, 20)));
  }
}

TEST(ShardedModelTest, ABiasOfEachPartIsNoticed) {
  const auto checkpoint =
      std::make_shared<RandomCheckpoint>(RandomModelShape{.kv_heads = 4, .biases = true});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  ShardedModel sharded(checkpoint, options, {2, 1, {}},
                       [](std::unique_ptr<Ops> ops, uint32_t) -> std::unique_ptr<Ops> {
                         return std::make_unique<BiasOfEachPartOps>(std::move(ops));
                       });
  EXPECT_FALSE(SameBits(Play(*Whole(checkpoint, options), 3, 20), Play(sharded, 3, 20)));
}

TEST(ShardedModelTest, PlannedMemoryIsWhatRanksTake) {
  ExpectPlannedMemory(std::make_shared<RandomCheckpoint>(
                          RandomModelShape{.layers = 3, .query_heads = 10, .kv_heads = 5}),
                      Options(ActivationFormat::kInt8));
}

TEST(ShardedModelTest, RanksHoldTheirSliceOnly) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(
      RandomModelShape{.layers = 4, .query_heads = 8, .kv_heads = 4});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  const auto whole = Whole(checkpoint, options);
  ShardedModel sharded(checkpoint, options, {2, 2, {}});
  uint64_t bytes = 0, kv_bytes = 0;
  for (size_t rank = 0; rank < 4; ++rank) {
    const ModelInfo& info = sharded.rank(rank).info();
    bytes += info.weight_bytes;
    kv_bytes += info.kv_bytes;
    EXPECT_LT(info.weight_bytes, whole->info().weight_bytes * 35 / 100) << rank;
    EXPECT_LE(info.kv_bytes, options.kv.bytes);
    ASSERT_EQ(info.kv_groups.size(), 1U);
    EXPECT_EQ(info.kv_groups[0].block_count, sharded.info().kv_groups[0].block_count);
  }
  EXPECT_EQ(sharded.info().weight_bytes, bytes);
  EXPECT_EQ(sharded.info().kv_bytes, kv_bytes);
  EXPECT_EQ(sharded.info().kv_groups[0].block_count, 4 * whole->info().kv_groups[0].block_count);
}

TEST(ShardedModelTest, AFaultEndsTheStepAndNewLinksBeginAnew) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(RandomModelShape{});
  const EngineOptions options = Options(ActivationFormat::kInt8);
  ShardedModel sharded(checkpoint, options, {2, 2, {}});
  const std::vector<float> expected = Play(sharded, 2, 12);
  sharded.Connect([](const std::string& name, uint32_t size) {
    auto members = testing::MakeThreadGroup(size);
    if (name == "tensor-1") members[0]->Abort(Unavailable("rank 3 is gone"));
    return members;
  });
  StepPlan plan;
  plan.tokens = {1};
  plan.slices.push_back({0, 0, 0, 1, 1, true, {0}, {1}});
  plan.block_tables = {0};
  EXPECT_EQ(sharded.Run({plan}).status().code(), StatusCode::kUnavailable);

  // The first rank alone: the others do not come.
  sharded.Connect(testing::ThreadGroups);
  sharded.rank(0).SetDeadline(Clock::Real().NowUs() + 1000);
  EXPECT_EQ(sharded.rank(0).Forward(plan).status().code(), StatusCode::kDeadlineExceeded);

  sharded.Connect(testing::ThreadGroups);
  sharded.rank(0).SetDeadline(INT64_MAX);
  EXPECT_TRUE(SameBits(expected, Play(sharded, 2, 12)));
}

}  // namespace
}  // namespace muselet
