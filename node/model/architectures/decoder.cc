#include "node/model/architectures/decoder.h"

#include <utility>

namespace muselet {
namespace {

// One part of a layer under its three names. Matrices are [rows, columns], vectors [rows].
struct Part {
  std::string_view canonical;
  std::string_view hugging_face;
  std::string_view gguf;
  uint64_t rows = 0;
  uint64_t columns = 0;  // 0 = a vector
};

class SpecList {
 public:
  explicit SpecList(TensorNaming naming) : naming_(naming) {}

  void Add(const Part& part) { AddNamed("", "", part); }
  void AddLayer(size_t layer, const Part& part) {
    const std::string number = std::to_string(layer) + ".";
    AddNamed("layers." + number,
             naming_ == TensorNaming::kGguf ? "blk." + number : "model.layers." + number, part);
  }
  std::vector<TensorSpec> Take() { return std::move(specs_); }

 private:
  void AddNamed(const std::string& canonical_prefix, const std::string& prefix, const Part& part) {
    TensorSpec spec;
    spec.canonical = canonical_prefix + std::string(part.canonical);
    spec.name =
        prefix + std::string(naming_ == TensorNaming::kGguf ? part.gguf : part.hugging_face);
    spec.rank = part.columns > 0 ? 2 : 1;
    spec.shape[0] = part.rows;
    if (part.columns > 0) spec.shape[1] = part.columns;
    specs_.push_back(std::move(spec));
  }

  TensorNaming naming_;
  std::vector<TensorSpec> specs_;
};

void AddAttention(SpecList& list, size_t n, const LayerSpec& layer, uint64_t hidden) {
  const uint64_t query = uint64_t{layer.query_heads} * layer.head_dim;
  const uint64_t kv = uint64_t{layer.kv_heads} * layer.head_dim;
  list.AddLayer(n, {"attention_norm", "input_layernorm.weight", "attn_norm.weight", hidden});
  list.AddLayer(n, {"q", "self_attn.q_proj.weight", "attn_q.weight", query, hidden});
  list.AddLayer(n, {"k", "self_attn.k_proj.weight", "attn_k.weight", kv, hidden});
  list.AddLayer(n, {"v", "self_attn.v_proj.weight", "attn_v.weight", kv, hidden});
  list.AddLayer(n, {"o", "self_attn.o_proj.weight", "attn_output.weight", hidden, query});
  if (!layer.attention_bias) return;
  list.AddLayer(n, {"q_bias", "self_attn.q_proj.bias", "attn_q.bias", query});
  list.AddLayer(n, {"k_bias", "self_attn.k_proj.bias", "attn_k.bias", kv});
  list.AddLayer(n, {"v_bias", "self_attn.v_proj.bias", "attn_v.bias", kv});
  list.AddLayer(n, {"o_bias", "self_attn.o_proj.bias", "attn_output.bias", hidden});
}

void AddFfn(SpecList& list, size_t n, const LayerSpec& layer, uint64_t hidden) {
  const uint64_t ffn = layer.ffn_dim;
  list.AddLayer(n, {"ffn_norm", "post_attention_layernorm.weight", "ffn_norm.weight", hidden});
  list.AddLayer(n, {"gate", "mlp.gate_proj.weight", "ffn_gate.weight", ffn, hidden});
  list.AddLayer(n, {"up", "mlp.up_proj.weight", "ffn_up.weight", ffn, hidden});
  list.AddLayer(n, {"down", "mlp.down_proj.weight", "ffn_down.weight", hidden, ffn});
  if (!layer.mlp_bias) return;
  list.AddLayer(n, {"gate_bias", "mlp.gate_proj.bias", "ffn_gate.bias", ffn});
  list.AddLayer(n, {"up_bias", "mlp.up_proj.bias", "ffn_up.bias", ffn});
  list.AddLayer(n, {"down_bias", "mlp.down_proj.bias", "ffn_down.bias", hidden});
}

}  // namespace

std::vector<TensorSpec> DecoderTensors(const ModelConfig& config, TensorNaming naming) {
  SpecList list(naming);
  const uint64_t hidden = config.hidden_dim;
  list.Add(
      {"embedding", "model.embed_tokens.weight", "token_embd.weight", config.vocab_size, hidden});
  list.Add({"output_norm", "model.norm.weight", "output_norm.weight", hidden});
  if (!config.tied_embeddings) {
    list.Add({"output", "lm_head.weight", "output.weight", config.vocab_size, hidden});
  }
  for (size_t n = 0; n < config.layers.size(); ++n) {
    AddAttention(list, n, config.layers[n], hidden);
    AddFfn(list, n, config.layers[n], hidden);
  }
  return list.Take();
}

}  // namespace muselet
