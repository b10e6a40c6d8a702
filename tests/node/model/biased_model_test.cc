// attention_bias and mlp_bias, from config.json and safetensors to logits: held against a decoder
// that is written out here in double, one position after the other.
#include <gtest/gtest.h>

#include <cmath>

#include "node/model/checkpoint.h"
#include "node/model/load_model.h"
#include "tests/node/cpu/random_data.h"
#include "tests/node/model/model_runner.h"
#include "tests/node/model/safetensors_writer.h"

namespace muselet {
namespace {

using testing::FloatTensors;

constexpr uint32_t kVocab = 24, kHidden = 64, kHeads = 2, kHeadDim = 32, kFfn = 96;
constexpr double kEps = 1e-5;

const std::string kConfig =
    R"({"architectures":["LlamaForCausalLM"],"vocab_size":24,"hidden_size":64,)"
    R"("intermediate_size":96,"num_hidden_layers":1,"num_attention_heads":2,)"
    R"("num_key_value_heads":1,"max_position_embeddings":64,"rms_norm_eps":1e-5,)"
    R"("tie_word_embeddings":true,"attention_bias":true,"mlp_bias":true,"hidden_act":"silu"})";

FloatTensors Weights() {
  FloatTensors tensors;
  uint32_t seed = 0;
  const auto add = [&](const std::string& name, std::vector<uint64_t> shape, float around) {
    uint64_t count = 1;
    for (const uint64_t size : shape) count *= size;
    auto values = testing::RandomFloats(count, ++seed, 0.3F);
    for (float& value : values) value += around;
    tensors[name] = {std::move(shape), std::move(values)};
  };
  const std::string layer = "model.layers.0.";
  add("model.embed_tokens.weight", {kVocab, kHidden}, 0);
  add("model.norm.weight", {kHidden}, 1);
  add(layer + "input_layernorm.weight", {kHidden}, 1);
  add(layer + "post_attention_layernorm.weight", {kHidden}, 1);
  const auto linear = [&](const std::string& name, uint64_t rows, uint64_t columns) {
    add(layer + name + ".weight", {rows, columns}, 0);
    add(layer + name + ".bias", {rows}, 0.2F);
  };
  linear("self_attn.q_proj", kHeads * kHeadDim, kHidden);
  linear("self_attn.k_proj", kHeadDim, kHidden);
  linear("self_attn.v_proj", kHeadDim, kHidden);
  linear("self_attn.o_proj", kHidden, kHeads * kHeadDim);
  linear("mlp.gate_proj", kFfn, kHidden);
  linear("mlp.up_proj", kFfn, kHidden);
  linear("mlp.down_proj", kHidden, kFfn);
  return tensors;
}

using Vector = std::vector<double>;

class PlainDecoder {
 public:
  explicit PlainDecoder(const FloatTensors& tensors) : tensors_(tensors) {}

  Vector Next(uint32_t token) {
    const auto& table = Values("model.embed_tokens.weight");
    Vector x(table.begin() + token * kHidden, table.begin() + (token + 1) * kHidden);
    Add(x, Linear("self_attn.o_proj", Attention(Norm(x, "model.layers.0.input_layernorm.weight"))));
    const Vector normed = Norm(x, "model.layers.0.post_attention_layernorm.weight");
    Vector gate = Linear("mlp.gate_proj", normed);
    const Vector up = Linear("mlp.up_proj", normed);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
    Add(x, Linear("mlp.down_proj", gate));
    const Vector last = Norm(x, "model.norm.weight");
    Vector logits(kVocab);
    for (uint32_t id = 0; id < kVocab; ++id) {
      for (uint32_t i = 0; i < kHidden; ++i) logits[id] += table[id * kHidden + i] * last[i];
    }
    return logits;
  }

 private:
  const std::vector<float>& Values(const std::string& name) const {
    return tensors_.at(name).values;
  }
  static void Add(Vector& x, const Vector& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  Vector Norm(const Vector& x, const std::string& name) const {
    double sum = 0;
    for (const double value : x) sum += value * value;
    Vector out = x;
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + kEps);
    for (size_t i = 0; i < x.size(); ++i) out[i] *= scale * Values(name)[i];
    return out;
  }
  Vector Linear(const std::string& name, const Vector& x) const {
    const auto& weight = Values("model.layers.0." + name + ".weight");
    const auto& bias = Values("model.layers.0." + name + ".bias");
    Vector out(bias.begin(), bias.end());
    for (size_t row = 0; row < out.size(); ++row) {
      for (size_t i = 0; i < x.size(); ++i) out[row] += weight[row * x.size() + i] * x[i];
    }
    return out;
  }
  // RoPE in halves, theta 10000, of one head.
  static void Rotate(double* head, size_t position) {
    for (uint32_t i = 0; i < kHeadDim / 2; ++i) {
      const double angle =
          static_cast<double>(position) * std::pow(10000.0, -2.0 * i / double{kHeadDim});
      const double a = head[i], b = head[i + kHeadDim / 2];
      head[i] = a * std::cos(angle) - b * std::sin(angle);
      head[i + kHeadDim / 2] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
  Vector Attention(const Vector& normed) {
    Vector q = Linear("self_attn.q_proj", normed), k = Linear("self_attn.k_proj", normed);
    Rotate(k.data(), keys_.size());
    for (uint32_t head = 0; head < kHeads; ++head) Rotate(&q[head * kHeadDim], keys_.size());
    keys_.push_back(k);
    values_.push_back(Linear("self_attn.v_proj", normed));
    Vector out(kHeads * kHeadDim);
    for (uint32_t head = 0; head < kHeads; ++head) {
      Vector weights;
      double sum = 0;
      for (const Vector& key : keys_) {
        double score = 0;
        for (uint32_t i = 0; i < kHeadDim; ++i) score += q[head * kHeadDim + i] * key[i];
        weights.push_back(std::exp(score / std::sqrt(double{kHeadDim})));
        sum += weights.back();
      }
      for (size_t p = 0; p < weights.size(); ++p) {
        for (uint32_t i = 0; i < kHeadDim; ++i)
          out[head * kHeadDim + i] += weights[p] / sum * values_[p][i];
      }
    }
    return out;
  }

  const FloatTensors& tensors_;
  std::vector<Vector> keys_, values_;
};

class BiasedModelTest : public ::testing::Test {
 protected:
  // The largest distance of a logit from the plain decoder's, over a short text.
  double Distance(const FloatTensors& file, const FloatTensors& oracle) {
    testing::WriteBytes(dir_.Path("config.json"), kConfig);
    testing::WriteBytes(dir_.Path("model.safetensors"), testing::SafetensorsBytes(file));
    auto checkpoint = Checkpoint::Open(dir_.path());
    CHECK(checkpoint.ok(), checkpoint.status().message());
    EngineOptions options;
    options.cpu.activations = ActivationFormat::kFloat32;
    options.kv.bytes = 1 << 20;
    auto model = LoadModel(std::move(checkpoint).value(), options, {});
    CHECK(model.ok(), model.status().message());
    const std::vector<TokenId> text = {3, 17, 9, 9, 0, 23};
    const std::vector<float> logits = testing::ModelRunner(**model).Score(text, 4);
    PlainDecoder decoder(oracle);
    double distance = 0;
    for (size_t row = 0; row < text.size(); ++row) {
      const Vector expected = decoder.Next(static_cast<uint32_t>(text[row]));
      for (uint32_t id = 0; id < kVocab; ++id) {
        distance = std::max(distance, std::abs(logits[row * kVocab + id] - expected[id]));
      }
    }
    return distance;
  }
  testing::TempDir dir_;
};

TEST_F(BiasedModelTest, ComputesWithEveryBias) {
  const FloatTensors weights = Weights();
  EXPECT_LT(Distance(weights, weights), 1e-3);
  // Each bias matters: without it the two differ.
  for (const auto& [name, tensor] : weights) {
    if (!name.ends_with(".bias")) continue;
    FloatTensors without = weights;
    for (float& value : without[name].values) value = 0;
    // A bias of the keys shifts all scores of a query alike but for the rotation.
    EXPECT_GT(Distance(without, weights), name.find("k_proj") == std::string::npos ? 0.05 : 2e-3)
        << name;
  }
}

TEST_F(BiasedModelTest, RefusesAMissingBiasAndAnUnannouncedOne) {
  FloatTensors weights = Weights();
  testing::WriteBytes(dir_.Path("config.json"), kConfig);
  const auto fault = [&] {
    testing::WriteBytes(dir_.Path("model.safetensors"), testing::SafetensorsBytes(weights));
    return Checkpoint::Open(dir_.path()).status().message();
  };
  ASSERT_EQ(fault(), "");
  const auto bias = weights.extract("model.layers.0.mlp.up_proj.bias");
  EXPECT_NE(fault().find("model.layers.0.mlp.up_proj.bias: the tensor is missing"),
            std::string::npos);
  weights = Weights();
  std::string plain = kConfig;
  plain.replace(plain.find("\"mlp_bias\":true"), 15, "\"mlp_bias\":false");
  testing::WriteBytes(dir_.Path("config.json"), plain);
  EXPECT_NE(fault().find("bias: the config has no use for this tensor"), std::string::npos);
}

}  // namespace
}  // namespace muselet
