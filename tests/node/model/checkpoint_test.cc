#include "node/model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/json.h"
#include "node/model/gguf.h"
#include "node/model/model_inspect.h"
#include "tests/node/model/model_files.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using testing::GoldenPath;
using ::testing::HasSubstr;
using testing::ReadBytes;
using testing::TempDir;
using testing::WriteBytes;

// A copy of the golden directory whose files a test may change.
class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() : model_(dir_.Path("tiny")) {
    std::filesystem::copy(GoldenPath("models/llama-tied-gqa"), model_);
    config_ = *ParseJson(ReadBytes(model_ + "/config.json"));
  }
  Result<std::unique_ptr<Checkpoint>> Open(const Json& config) {
    WriteBytes(model_ + "/config.json", WriteJson(config));
    return Checkpoint::Open(model_);
  }
  // The fault after one field is set (or removed, with a discarded value).
  std::string Refusal(const std::string& field, const Json& value) {
    Json changed = config_;
    changed[field] = value;
    const auto checkpoint = Open(changed);
    EXPECT_FALSE(checkpoint.ok()) << field << " " << value;
    return checkpoint.status().message();
  }
  TempDir dir_;
  std::string model_;
  Json config_;
};

TEST_F(CheckpointTest, ReadsAHuggingFaceDirectory) {
  const auto checkpoint = Open(config_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const ModelConfig& config = (*checkpoint)->config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.name, "tiny");
  EXPECT_EQ(config.vocab_size, 512U);
  EXPECT_EQ(config.hidden_dim, 64U);
  EXPECT_EQ(config.context_tokens, 1024U);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_THAT(config.end_tokens, ElementsAre(2));
  ASSERT_EQ(config.layers.size(), 4U);
  EXPECT_EQ(config.layers[3].query_heads, 4U);
  EXPECT_EQ(config.layers[3].kv_heads, 2U);
  EXPECT_EQ(config.layers[3].head_dim, 16U);
  EXPECT_EQ(config.layers[3].norm_eps, 1e-6);
  EXPECT_EQ(config.layers[3].rope.layout, RopeLayout::kHalves);
  EXPECT_EQ((*checkpoint)->Tensor("layers.1.down")->ToString(), "[64, 128] f32");
  EXPECT_EQ((*checkpoint)->Tensor("output").status().code(), StatusCode::kNotFound);
  EXPECT_EQ((*checkpoint)->TensorNames().size(), 38U);
  EXPECT_EQ((*checkpoint)->gguf(), nullptr);
  EXPECT_THAT((*checkpoint)->chat_template(), HasSubstr("bos_token"));
  EXPECT_FALSE((*checkpoint)->tokenizer_json().empty());
}

TEST_F(CheckpointTest, ReadsAGgufFileAsTheSameModel) {
  const auto gguf = Checkpoint::Open(GoldenPath("gguf/llama-tied-gqa.F16.gguf"));
  const auto directory = Open(config_);
  ASSERT_TRUE(gguf.ok()) << gguf.status().message();
  const ModelConfig& a = (*gguf)->config();
  const ModelConfig& b = (*directory)->config();
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.end_tokens, b.end_tokens);
  EXPECT_EQ(a.layers.size(), b.layers.size());
  EXPECT_EQ(a.layers[0].head_dim, b.layers[0].head_dim);
  EXPECT_EQ(a.layers[0].rope.theta, b.layers[0].rope.theta);
  EXPECT_EQ(a.layers[0].rope.layout, RopeLayout::kInterleaved);
  EXPECT_EQ((*gguf)->chat_template(), (*directory)->chat_template());
  EXPECT_NE((*gguf)->gguf(), nullptr);
  auto names = (*gguf)->TensorNames();
  auto other = (*directory)->TensorNames();
  EXPECT_THAT(names, ::testing::UnorderedElementsAreArray(other));
}

TEST_F(CheckpointTest, ReadsBothFormsOfRopeScaling) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 64}};
  Json older = config_;
  older.erase("rope_parameters");
  older["rope_theta"] = 500000.0;
  older["rope_scaling"] = scaling;
  Json newer = config_;
  newer["rope_parameters"] = scaling;
  newer["rope_parameters"]["rope_theta"] = 500000.0;
  for (const Json& config : {older, newer}) {
    const auto checkpoint = Open(config);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    const RopeSpec& rope = (*checkpoint)->config().layers[0].rope;
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.scaling, RopeScaling::kLlama3);
    EXPECT_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.high_freq_factor, 4.0);
    EXPECT_EQ(rope.original_context, 64U);
  }
}

TEST_F(CheckpointTest, ReadsAnUntiedHeadFromTheOtherFixture) {
  SKIP_WITHOUT_SHARED(path, "models/llama3-ropescaled");
  const auto checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_FALSE((*checkpoint)->config().tied_embeddings);
  EXPECT_EQ((*checkpoint)->Tensor("output")->ToString(), "[512, 128] bf16");
}

TEST_F(CheckpointTest, TakesEndTokensFromBothConfigs) {
  WriteBytes(model_ + "/generation_config.json", R"({"eos_token_id": [5, 2, 7]})");
  EXPECT_THAT((*Open(config_))->config().end_tokens, ElementsAre(5, 2, 7));
  WriteBytes(model_ + "/generation_config.json", R"({"eos_token_id": 512})");
  EXPECT_THAT(Checkpoint::Open(model_).status().message(),
              HasSubstr("generation_config.json: eos_token_id: expected ids from 0 to 511"));
}

TEST_F(CheckpointTest, TakesTheTemplateFromWhereItStands) {
  WriteBytes(model_ + "/tokenizer_config.json",
             R"({"chat_template":[{"name":"tool_use","template":"T"},)"
             R"({"name":"default","template":"D"}]})");
  EXPECT_EQ((*Open(config_))->chat_template(), "D");
  WriteBytes(model_ + "/chat_template.jinja", "J");
  EXPECT_EQ((*Open(config_))->chat_template(), "J");
  WriteBytes(model_ + "/tokenizer_config.json", R"({"chat_template":7})");
  EXPECT_THAT(Open(config_).status().message(), HasSubstr("tokenizer_config.json: chat_template"));
}

TEST_F(CheckpointTest, RefusesNonsenseNamingFileAndField) {
  const Json lies = {0, -1, 2147483648U, uint64_t{1} << 63U, 1e300, "x", Json::array(), true};
  for (const std::string field :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings", "vocab_size"}) {
    for (const Json& lie : lies) {
      EXPECT_THAT(Refusal(field, lie), HasSubstr("config.json: " + field + ": ")) << lie;
    }
  }
  EXPECT_THAT(Refusal("hidden_size", nullptr), HasSubstr("config.json: hidden_size: missing"));
  EXPECT_THAT(Refusal("num_key_value_heads", 3), HasSubstr("3 does not divide"));
  EXPECT_THAT(Refusal("head_dim", 15), HasSubstr("must be even"));
  EXPECT_THAT(Refusal("rms_norm_eps", -1), HasSubstr("config.json: rms_norm_eps: "));
  EXPECT_THAT(Refusal("hidden_act", "relu"), HasSubstr("hidden_act: \"relu\" is not supported"));
  EXPECT_THAT(Refusal("tie_word_embeddings", 1), HasSubstr("expected true or false"));
  EXPECT_THAT(Refusal("eos_token_id", -1), HasSubstr("eos_token_id: "));
  EXPECT_THAT(Refusal("rope_parameters", {{"rope_type", "yarn"}}),
              HasSubstr("rope_parameters: rope_type: \"yarn\" is not supported"));
  EXPECT_THAT(Refusal("rope_parameters", {{"rope_theta", -5}}), HasSubstr("rope_theta: "));
  EXPECT_THAT(Refusal("quantization_config", {{"bits", 4}}), HasSubstr("quantization_config: "));
  EXPECT_THAT(Refusal("architectures", {"BertForMaskedLM"}),
              HasSubstr("is not supported (supported: LlamaForCausalLM"));
  EXPECT_THAT(Refusal("architectures", 5), HasSubstr("config.json: architectures: "));
}

TEST_F(CheckpointTest, RefusesTensorsThatContradictTheConfig) {
  EXPECT_THAT(Refusal("intermediate_size", 64), HasSubstr("the config asks for ["));
  EXPECT_THAT(Refusal("vocab_size", 513), HasSubstr("embed_tokens.weight: [512, 64] f32"));
  EXPECT_THAT(Refusal("tie_word_embeddings", false), HasSubstr("lm_head.weight: the tensor is mi"));
  EXPECT_THAT(Refusal("num_hidden_layers", 5), HasSubstr("model.layers.4."));
  EXPECT_THAT(Refusal("num_hidden_layers", 3), HasSubstr("the config has no use for this tensor"));
  EXPECT_THAT(Refusal("num_hidden_layers", 1000), HasSubstr("more layers than"));
  EXPECT_THAT(Refusal("attention_bias", true), HasSubstr("_proj.bias: the tensor is missing"));
}

TEST_F(CheckpointTest, RefusesFilesThatAreNotConfigs) {
  for (const std::string text : {"", "{", "[]", "nul", "{\"a\":1,\"a\":2}", "{}"}) {
    WriteBytes(model_ + "/config.json", text);
    EXPECT_THAT(Checkpoint::Open(model_).status().message(), HasSubstr("config.json: ")) << text;
  }
}

TEST_F(CheckpointTest, SaysWhatIsMissingAndWhatToDo) {
  EXPECT_THAT(Checkpoint::Open(dir_.Path("none")).status().message(),
              HasSubstr("no such file or directory; give a .gguf file or"));
  EXPECT_THAT(Checkpoint::Open(dir_.path()).status().message(), HasSubstr("has no config.json; "));
  EXPECT_THAT(Checkpoint::Open(model_ + "/model.safetensors").status().message(),
              HasSubstr("give the directory"));
  EXPECT_THAT(Checkpoint::Open(model_ + "/tokenizer.json").status().message(),
              HasSubstr("not a GGUF file"));
  std::filesystem::remove(model_ + "/model.safetensors");
  EXPECT_THAT(Checkpoint::Open(model_).status().message(), HasSubstr("has no model.safetensors"));
}

TEST_F(CheckpointTest, GgufConfigIsHeldAgainstItsTensors) {
  const std::string valid = testing::TinyLlama().Finish();
  const auto with = [&](std::string_view key, uint32_t value) {
    std::string bytes = valid;
    const size_t at = bytes.find(key) + key.size() + 4;
    std::memcpy(bytes.data() + at, &value, sizeof(value));
    WriteBytes(dir_.Path("m.gguf"), bytes);
    return Checkpoint::Open(dir_.Path("m.gguf")).status().message();
  };
  EXPECT_EQ(with("llama.context_length", 64), "");
  EXPECT_THAT(with("llama.context_length", 0), HasSubstr("llama.context_length: 0, must be 1 to"));
  EXPECT_THAT(with("llama.block_count", 2), HasSubstr("blk.1."));
  EXPECT_THAT(with("llama.block_count", 1000), HasSubstr("more layers than"));
  EXPECT_THAT(with("llama.feed_forward_length", 15), HasSubstr("the config asks for"));
  EXPECT_THAT(with("tokenizer.ggml.eos_token_id", 4), HasSubstr("not below the vocabulary size 4"));
  EXPECT_THAT(with("llama.attention.layer_norm_rms_epsilon", 0x7FC00000), HasSubstr("epsilon: "));
}

TEST_F(CheckpointTest, DigestFollowsTheBytes) {
  const std::string before = (*Open(config_))->Digest();
  EXPECT_EQ(before, (*Open(config_))->Digest());
  EXPECT_EQ(before.size(), 32U);
  std::string weights = ReadBytes(model_ + "/model.safetensors");
  weights.back() = static_cast<char>(weights.back() ^ 1);
  WriteBytes(model_ + "/model.safetensors", weights);
  EXPECT_NE(before, (*Open(config_))->Digest());
}

TEST_F(CheckpointTest, InspectionTellsWhatTheModelIs) {
  const auto checkpoint = Checkpoint::Open(GoldenPath("gguf/llama-tied-gqa.Q4_1.gguf"));
  ASSERT_TRUE(checkpoint.ok());
  const auto json = ParseJson(InspectJson(**checkpoint));
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["architecture"], "llama");
  EXPECT_EQ((*json)["format"], "GGUF v3");
  EXPECT_EQ((*json)["parameters"], 180800);
  EXPECT_EQ((*json)["tokenizer"], "gpt2 (gpt-2)");
  EXPECT_EQ((*json)["chat_template"], true);
  EXPECT_EQ((*json)["dtypes"]["q4_1"]["tensors"], 28);
  EXPECT_THAT(InspectText(**checkpoint), HasSubstr("180.8 K (180800)"));
  EXPECT_THAT(InspectText(**checkpoint), HasSubstr("theta 10000, 16 dimensions"));
  const auto directory = Open(config_);
  EXPECT_THAT(InspectText(**directory), HasSubstr("BPE"));
}

TEST_F(CheckpointTest, ReadsTheDefaultModel) {
  SKIP_WITHOUT_MODEL(path);
  const auto checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ((*checkpoint)->config().layers.size(), 30U);
  EXPECT_EQ((*checkpoint)->Tensor("embedding")->ToString(), "[49152, 576] q8_0");
  EXPECT_THAT(InspectText(**checkpoint), HasSubstr("134.5 M"));
}

}  // namespace
}  // namespace muselet
