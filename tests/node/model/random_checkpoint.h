// A small Llama with random weights of a given format, in memory: enough for every property that
// does not need the right answer.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "node/model/checkpoint.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::testing {

struct RandomModelShape {
  DType dtype = DType::kQ4_1;  // of the matrices
  uint32_t vocab = 131;        // not a multiple of 8
  uint32_t hidden = 256;
  uint32_t layers = 2;
  uint32_t query_heads = 8;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 32;
  uint32_t ffn = 512;
  uint32_t window_tokens = 0;
  bool tied = true;
  bool biases = false;
  uint32_t experts = 0;
  uint32_t experts_active = 0;
  RopeLayout rope = RopeLayout::kHalves;
};

class RandomCheckpoint final : public Checkpoint {
 public:
  explicit RandomCheckpoint(const RandomModelShape& shape) {
    config_.architecture = "llama";
    config_.vocab_size = shape.vocab;
    config_.hidden_dim = shape.hidden;
    config_.context_tokens = 4096;
    config_.tied_embeddings = shape.tied;
    AddMatrix("embedding", shape.dtype, shape.vocab, shape.hidden);
    if (!shape.tied) AddMatrix("output", shape.dtype, shape.vocab, shape.hidden);
    AddVector("output_norm", shape.hidden);
    for (uint32_t i = 0; i < shape.layers; ++i)
      AddLayer(shape, "layers." + std::to_string(i) + ".");
  }

  Result<TensorView> Tensor(std::string_view name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return NotFound("no tensor " + std::string(name));
    return found->second.view;
  }
  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }
  void Release(const TensorView&) const override {}
  std::string Digest() const override { return "random"; }
  const GgufFile* gguf() const override { return nullptr; }
  const std::string& tokenizer_json() const override { return empty_; }
  const std::string& tokenizer_config_json() const override { return empty_; }
  const std::string& chat_template() const override { return empty_; }

  ModelConfig& config() { return config_; }
  using Checkpoint::config;
  // Replaces a tensor, for faults.
  void AddMatrix(const std::string& name, DType dtype, uint64_t rows, uint64_t columns) {
    tensors_.insert_or_assign(name, RandomTensor(dtype, rows, columns, ++seed_));
  }
  void Remove(const std::string& name) { tensors_.erase(name); }

 private:
  using Matrices = std::vector<std::pair<std::string, std::pair<uint64_t, uint64_t>>>;

  void AddVector(const std::string& name, uint64_t size) {
    RandomTensor tensor(DType::kF32, 1, size, ++seed_);
    tensor.view.rank = 1;
    tensor.view.shape = {size, 1, 1, 1};
    auto* values = reinterpret_cast<float*>(tensor.bytes.data());
    if (name.find("norm") != std::string::npos)
      for (uint64_t i = 0; i < size; ++i) values[i] += 1.0F;
    tensors_.insert_or_assign(name, std::move(tensor));
  }
  void AddLayer(const RandomModelShape& shape, const std::string& prefix) {
    LayerSpec spec;
    spec.query_heads = shape.query_heads;
    spec.kv_heads = shape.kv_heads;
    spec.head_dim = shape.head_dim;
    spec.ffn_dim = shape.ffn;
    spec.window_tokens = shape.window_tokens;
    spec.experts = shape.experts;
    spec.experts_active = shape.experts_active;
    spec.attention_bias = spec.output_bias = spec.mlp_bias = shape.biases;
    spec.rope.rotary_dim = shape.head_dim;
    spec.rope.layout = shape.rope;
    config_.layers.push_back(spec);
    const uint64_t query = uint64_t{shape.query_heads} * shape.head_dim;
    const uint64_t kv = uint64_t{shape.kv_heads} * shape.head_dim;
    AddVector(prefix + "attention_norm", shape.hidden);
    AddVector(prefix + "ffn_norm", shape.hidden);
    Add(shape, prefix,
        {{"q", {query, shape.hidden}},
         {"k", {kv, shape.hidden}},
         {"v", {kv, shape.hidden}},
         {"o", {shape.hidden, query}}});
    const Matrices feed_forward = {{"gate", {shape.ffn, shape.hidden}},
                                   {"up", {shape.ffn, shape.hidden}},
                                   {"down", {shape.hidden, shape.ffn}}};
    if (shape.experts == 0) return Add(shape, prefix, feed_forward);
    AddMatrix(prefix + "router", DType::kF32, shape.experts, shape.hidden);
    for (uint32_t e = 0; e < shape.experts; ++e)
      Add(shape, prefix + "experts." + std::to_string(e) + ".", feed_forward);
  }
  void Add(const RandomModelShape& shape, const std::string& prefix, const Matrices& matrices) {
    for (const auto& [name, size] : matrices) {
      AddMatrix(prefix + name, shape.dtype, size.first, size.second);
      if (shape.biases) AddVector(prefix + name + "_bias", size.first);
    }
  }

  std::map<std::string, RandomTensor, std::less<>> tensors_;
  std::string empty_;
  uint32_t seed_ = 0;
};

}  // namespace muselet::testing
