// What the configs of the architectures say of layers, and how nonsense in them is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/json.h"
#include "node/model/checkpoint.h"
#include "node/model/load_model.h"
#include "node/model/model_inspect.h"
#include "tests/node/model/model_files.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A copy of a fixture whose config.json can be changed.
class ModelCopy {
 public:
  explicit ModelCopy(const std::string& from) : path_(dir_.Path("copy")) {
    fs::copy(from, path_);
    for (const auto& file : fs::directory_iterator(path_))
      fs::permissions(file, fs::perms::owner_all);
    config_ = *ParseJson(testing::ReadBytes(path_ + "/config.json"));
  }
  // The checkpoint with `fields` changed; null takes a field away.
  Result<std::unique_ptr<Checkpoint>> With(const Json& fields, const std::string& object = "") {
    Json config = config_;
    Json& part = object.empty() ? config : config[object];
    for (const auto& [name, value] : fields.items()) {
      if (value.is_null()) {
        part.erase(name);
      } else {
        part[name] = value;
      }
    }
    testing::WriteBytes(path_ + "/config.json", WriteJson(config));
    return Checkpoint::Open(path_);
  }
  std::string Fault(const Json& fields, const std::string& object = "") {
    return std::string(With(fields, object).status().message());
  }

 private:
  testing::TempDir dir_;
  const std::string path_;
  Json config_;
};

std::vector<uint32_t> Windows(const ModelConfig& config) {
  std::vector<uint32_t> windows;
  for (const LayerSpec& layer : config.layers) windows.push_back(layer.window_tokens);
  return windows;
}

TEST(ArchitectureConfigTest, MuseGlimmerSkipsWhatSeesWithANotice) {
  SKIP_WITHOUT_SHARED(path, "models/muse-glimmer-text");
  const auto checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_THAT((*checkpoint)->notices(),
              ElementsAre(HasSubstr("the part that sees is skipped (25 tensors, ")));
  EXPECT_THAT(Windows((*checkpoint)->config()), ElementsAre(16, 16, 16, 0, 16, 16, 16, 0));
  EXPECT_EQ((*checkpoint)->config().layers[3].rope.rotary_dim, 0U);
  const std::string text = InspectText(**checkpoint);
  EXPECT_THAT(text, HasSubstr("6 of 8 layers, 16 tokens"));
  EXPECT_THAT(text, HasSubstr("the model understands text alone"));
}

// The kinds of layers follow from their number where the config does not list them.
TEST(ArchitectureConfigTest, MuseGlimmerCountsKindsFromTheLastLayer) {
  SKIP_WITHOUT_SHARED(path, "models/muse-glimmer-text");
  ModelCopy copy(path);
  const auto checkpoint =
      copy.With({{"layer_types", nullptr}, {"layer_rope_theta", nullptr}}, "text_config");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_THAT(Windows((*checkpoint)->config()), ElementsAre(16, 16, 16, 0, 16, 16, 16, 0));
  EXPECT_EQ((*checkpoint)->config().layers[7].rope.rotary_dim, 0U);
  EXPECT_THAT(copy.Fault({{"text_config", nullptr}}), HasSubstr("text_config: missing"));
  EXPECT_THAT(copy.Fault({{"layer_rope_theta", {0, 1}}}, "text_config"),
              HasSubstr("layer_rope_theta: expected one for each of 8 layers"));
  EXPECT_THAT(copy.Fault({{"layer_types", {"chunked", 2, 3, 4, 5, 6, 7, 8}}}, "text_config"),
              HasSubstr("layer_types: \"chunked\" is not supported"));
}

TEST(ArchitectureConfigTest, BothSpellingsOfGemmasRotationsMeanTheSame) {
  SKIP_WITHOUT_SHARED(path, "models/gemma3-text");
  ModelCopy copy(path);
  const auto check = [](const Checkpoint& checkpoint, double factor) {
    const std::vector<LayerSpec>& layers = checkpoint.config().layers;
    EXPECT_EQ(layers[0].rope.theta, 10000.0);
    EXPECT_EQ(layers[0].rope.factor, 1.0);
    EXPECT_EQ(layers[2].rope.theta, 1000000.0);
    EXPECT_EQ(layers[2].rope.factor, factor);
  };
  const auto newer = copy.With({});
  ASSERT_TRUE(newer.ok());
  check(**newer, 1.0);
  const auto older = copy.With({{"rope_parameters", nullptr},
                                {"rope_theta", 1e6},
                                {"rope_local_base_freq", 1e4},
                                {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}});
  ASSERT_TRUE(older.ok()) << older.status().message();
  check(**older, 8.0);
  const auto silent = copy.With({{"rope_parameters", nullptr}, {"layer_types", nullptr}});
  ASSERT_TRUE(silent.ok());
  EXPECT_THAT(Windows((*silent)->config()), ElementsAre(20, 20, 20, 20, 20, 0, 20));
  EXPECT_THAT(copy.Fault({{"attn_logit_softcapping", 50.0}}),
              HasSubstr("attn_logit_softcapping: is not supported"));
  EXPECT_THAT(copy.Fault({{"use_bidirectional_attention", true}}),
              HasSubstr("use_bidirectional_attention: true is not supported"));
}

TEST(ArchitectureConfigTest, PhiRotatesAPartOfItsHeadsAndRefusesLongrope) {
  SKIP_WITHOUT_SHARED(path, "models/phi3-fused");
  ModelCopy copy(path);
  const auto part = copy.With({{"partial_rotary_factor", 0.5}, {"sliding_window", 9}});
  ASSERT_TRUE(part.ok()) << part.status().message();
  EXPECT_EQ((*part)->config().layers[0].rope.rotary_dim, 8U);
  EXPECT_THAT(Windows((*part)->config()), ElementsAre(9, 9, 9, 9));
  EXPECT_THAT(copy.Fault({{"rope_scaling", {{"type", "longrope"}, {"factor", 2.0}}}}),
              HasSubstr("\"longrope\" is not supported"));
  EXPECT_THAT(copy.Fault({{"partial_rotary_factor", 0.0}}), HasSubstr("partial_rotary_factor: "));
}

TEST(ArchitectureConfigTest, QwenHasWindowsOnItsLaterLayersOnly) {
  ModelCopy copy(testing::GoldenPath("sharded/qwen2-bias"));
  const auto windowed = copy.With({{"use_sliding_window", true},
                                   {"sliding_window", 32},
                                   {"max_window_layers", 3},
                                   {"layer_types", nullptr}});
  ASSERT_TRUE(windowed.ok()) << windowed.status().message();
  EXPECT_THAT(Windows((*windowed)->config()), ElementsAre(0, 0, 0, 32));
  EXPECT_THAT(copy.Fault({{"use_sliding_window", "yes"}}), HasSubstr("use_sliding_window: "));
}

TEST(ArchitectureConfigTest, MixtralRefusesImpossibleExperts) {
  SKIP_WITHOUT_SHARED(path, "models/mixtral-moe");
  ModelCopy copy(path);
  EXPECT_THAT(copy.Fault({{"num_experts_per_tok", 5}}), HasSubstr("num_experts_per_tok: "));
  EXPECT_THAT(copy.Fault({{"num_local_experts", 0}}), HasSubstr("num_local_experts: "));
  EXPECT_THAT(copy.Fault({{"num_local_experts", 5}}), HasSubstr("gate.weight"));
}

// Mistral keeps 24 tokens of every sequence, whatever its length.
TEST(ArchitectureConfigTest, MistralsLayersKeepTheirWindow) {
  auto checkpoint = Checkpoint::Open(testing::GoldenPath("gguf/mistral-swa.F32.gguf"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const auto model = LoadModel(std::move(checkpoint).value(), EngineOptions(), {});
  ASSERT_TRUE(model.ok()) << model.status().message();
  ASSERT_EQ((*model)->info().kv_groups.size(), 1U);
  EXPECT_EQ((*model)->info().kv_groups[0].window_tokens, 24U);
}

}  // namespace
}  // namespace muselet
