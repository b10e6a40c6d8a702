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
  SpecList(TensorNaming naming, const DecoderNames& names) : naming_(naming), names_(names) {}

  const DecoderNames& names() const { return names_; }
  bool gguf() const { return naming_ == TensorNaming::kGguf; }

  void Add(const Part& part) { AddNamed("", "", part); }
  // Under the prefix that all but the head have.
  void AddInner(const Part& part) { AddNamed("", gguf() ? "" : std::string(names_.prefix), part); }
  TensorSpec& AddLayer(size_t layer, const Part& part) {
    const std::string number = std::to_string(layer) + ".";
    const std::string prefix =
        gguf() ? "blk." + number : std::string(names_.prefix) + "layers." + number;
    return AddNamed("layers." + number, prefix, part);
  }
  // One tensor [sum of the rows, columns] with several canonical parts.
  void AddFused(size_t layer, Part whole, const std::vector<std::pair<const char*, uint64_t>>& of) {
    for (const auto& [canonical, rows] : of) whole.rows += rows;
    TensorSpec& spec = AddLayer(layer, whole);
    uint64_t begin = 0;
    for (const auto& [canonical, rows] : of) {
      spec.parts.push_back({Canonical(layer, canonical), begin, rows});
      begin += rows;
    }
  }
  // One tensor [experts, rows, columns], a matrix an expert.
  void AddExperts(size_t layer, const Part& one, uint64_t experts) {
    TensorSpec& spec = AddLayer(layer, one);
    spec.rank = 3;
    spec.shape = {experts, one.rows, one.columns, 1};
    for (uint64_t e = 0; e < experts; ++e)
      spec.parts.push_back(
          {Canonical(layer, "experts." + std::to_string(e) + "." + std::string(one.canonical)), e,
           1});
  }
  std::vector<TensorSpec> Take() { return std::move(specs_); }

 private:
  static std::string Canonical(size_t layer, const std::string& name) {
    return "layers." + std::to_string(layer) + "." + name;
  }
  TensorSpec& AddNamed(const std::string& canonical_prefix, const std::string& prefix,
                       const Part& part) {
    TensorSpec spec;
    spec.canonical = canonical_prefix + std::string(part.canonical);
    spec.name = prefix + std::string(gguf() ? part.gguf : part.hugging_face);
    spec.rank = part.columns > 0 ? 2 : 1;
    spec.shape[0] = part.rows;
    if (part.columns > 0) spec.shape[1] = part.columns;
    specs_.push_back(std::move(spec));
    return specs_.back();
  }

  TensorNaming naming_;
  const DecoderNames& names_;
  std::vector<TensorSpec> specs_;
};

void AddProjections(SpecList& list, size_t n, const LayerSpec& layer, uint64_t hidden) {
  const uint64_t query = uint64_t{layer.query_heads} * layer.head_dim;
  const uint64_t kv = uint64_t{layer.kv_heads} * layer.head_dim;
  if (list.names().fused) {
    list.AddFused(n, {"", "self_attn.qkv_proj.weight", "attn_qkv.weight", 0, hidden},
                  {{"q", query}, {"k", kv}, {"v", kv}});
  } else {
    list.AddLayer(n, {"q", "self_attn.q_proj.weight", "attn_q.weight", query, hidden});
    list.AddLayer(n, {"k", "self_attn.k_proj.weight", "attn_k.weight", kv, hidden});
    list.AddLayer(n, {"v", "self_attn.v_proj.weight", "attn_v.weight", kv, hidden});
  }
  list.AddLayer(n, {"o", "self_attn.o_proj.weight", "attn_output.weight", hidden, query});
  if (layer.attention_bias) {
    list.AddLayer(n, {"q_bias", "self_attn.q_proj.bias", "attn_q.bias", query});
    list.AddLayer(n, {"k_bias", "self_attn.k_proj.bias", "attn_k.bias", kv});
    list.AddLayer(n, {"v_bias", "self_attn.v_proj.bias", "attn_v.bias", kv});
  }
  if (layer.output_bias)
    list.AddLayer(n, {"o_bias", "self_attn.o_proj.bias", "attn_output.bias", hidden});
}

void AddAttention(SpecList& list, size_t n, const LayerSpec& layer, uint64_t hidden) {
  list.AddLayer(n, {"attention_norm", "input_layernorm.weight", "attn_norm.weight", hidden});
  AddProjections(list, n, layer, hidden);
  if (layer.output_gate) {
    const uint64_t query = uint64_t{layer.query_heads} * layer.head_dim;
    list.AddLayer(n,
                  {"output_gate", "self_attn.gate_proj.weight", "attn_gate.weight", query, hidden});
  }
  if (layer.head_norm == HeadNorm::kWeighted) {
    list.AddLayer(n, {"q_norm", "self_attn.q_norm.weight", "attn_q_norm.weight", layer.head_dim});
    list.AddLayer(n, {"k_norm", "self_attn.k_norm.weight", "attn_k_norm.weight", layer.head_dim});
  }
  if (layer.post_norms) {
    list.AddLayer(n, {"post_attention_norm", "post_attention_layernorm.weight",
                      "post_attention_norm.weight", hidden});
  }
}

void AddExperts(SpecList& list, size_t n, const LayerSpec& layer, uint64_t hidden) {
  const uint64_t ffn = layer.ffn_dim;
  const DecoderNames& names = list.names();
  list.AddLayer(n, {"router", names.router, "ffn_gate_inp.weight", layer.experts, hidden});
  if (list.gguf()) {
    list.AddExperts(n, {"gate", "", "ffn_gate_exps.weight", ffn, hidden}, layer.experts);
    list.AddExperts(n, {"up", "", "ffn_up_exps.weight", ffn, hidden}, layer.experts);
    list.AddExperts(n, {"down", "", "ffn_down_exps.weight", hidden, ffn}, layer.experts);
    return;
  }
  for (uint32_t e = 0; e < layer.experts; ++e) {
    const std::string canonical = "experts." + std::to_string(e) + ".";
    const std::string file = std::string(names.experts) + std::to_string(e) + ".";
    const auto add = [&](const char* name, std::string_view in_file, uint64_t rows,
                         uint64_t columns) {
      list.AddLayer(n, {canonical + name, file + std::string(in_file), "", rows, columns});
    };
    add("gate", names.gate, ffn, hidden);
    add("up", names.up, ffn, hidden);
    add("down", names.down, hidden, ffn);
  }
}

void AddDense(SpecList& list, size_t n, const LayerSpec& layer, uint64_t hidden) {
  const uint64_t ffn = layer.ffn_dim;
  if (list.names().fused) {
    list.AddFused(n, {"", "mlp.gate_up_proj.weight", "ffn_up.weight", 0, hidden},
                  {{"gate", ffn}, {"up", ffn}});
  } else {
    list.AddLayer(n, {"gate", "mlp.gate_proj.weight", "ffn_gate.weight", ffn, hidden});
    list.AddLayer(n, {"up", "mlp.up_proj.weight", "ffn_up.weight", ffn, hidden});
  }
  list.AddLayer(n, {"down", "mlp.down_proj.weight", "ffn_down.weight", hidden, ffn});
  if (!layer.mlp_bias) return;
  list.AddLayer(n, {"gate_bias", "mlp.gate_proj.bias", "ffn_gate.bias", ffn});
  list.AddLayer(n, {"up_bias", "mlp.up_proj.bias", "ffn_up.bias", ffn});
  list.AddLayer(n, {"down_bias", "mlp.down_proj.bias", "ffn_down.bias", hidden});
}

void AddFeedForward(SpecList& list, size_t n, const LayerSpec& layer, uint64_t hidden) {
  list.AddLayer(
      n, {"ffn_norm",
          layer.post_norms ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight",
          "ffn_norm.weight", hidden});
  if (layer.experts > 0) {
    AddExperts(list, n, layer, hidden);
  } else {
    AddDense(list, n, layer, hidden);
  }
  if (layer.post_norms) {
    list.AddLayer(
        n, {"post_ffn_norm", "post_feedforward_layernorm.weight", "post_ffw_norm.weight", hidden});
  }
}

}  // namespace

std::vector<TensorSpec> DecoderTensors(const ModelConfig& config, TensorNaming naming,
                                       const DecoderNames& names) {
  SpecList list(naming, names);
  const uint64_t hidden = config.hidden_dim;
  list.AddInner(
      {"embedding", "embed_tokens.weight", "token_embd.weight", config.vocab_size, hidden});
  list.AddInner({"output_norm", "norm.weight", "output_norm.weight", hidden});
  if (!config.tied_embeddings) {
    list.Add({"output", "lm_head.weight", "output.weight", config.vocab_size, hidden});
  }
  for (size_t n = 0; n < config.layers.size(); ++n) {
    AddAttention(list, n, config.layers[n], hidden);
    AddFeedForward(list, n, config.layers[n], hidden);
  }
  return list.Take();
}

}  // namespace muselet
