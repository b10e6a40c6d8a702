#include "node/model/architectures/llama.h"

#include "node/model/architectures/decoder.h"
#include "node/model/architectures/rope_fields.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"

namespace muselet {
namespace {

// How the two formats call the same fields.
struct FieldNames {
  std::string_view hidden_dim, ffn_dim, layers, heads, kv_heads, head_dim, context, norm_eps;
};
constexpr FieldNames kHuggingFaceNames = {
    "hidden_size",         "intermediate_size", "num_hidden_layers",       "num_attention_heads",
    "num_key_value_heads", "head_dim",          "max_position_embeddings", "rms_norm_eps"};
constexpr FieldNames kGgufNames = {"embedding_length",
                                   "feed_forward_length",
                                   "block_count",
                                   "attention.head_count",
                                   "attention.head_count_kv",
                                   "attention.key_length",
                                   "context_length",
                                   "attention.layer_norm_rms_epsilon"};

// The layer that all layers equal; sizes but no RoPE.
Result<LayerSpec> ReadLayer(const ConfigFields& config, const FieldNames& names,
                            uint32_t hidden_dim) {
  LayerSpec layer;
  ASSIGN_OR_RETURN(layer.ffn_dim, config.Size(names.ffn_dim, kWidthMax));
  ASSIGN_OR_RETURN(layer.query_heads, config.Size(names.heads, kHeadsMax));
  ASSIGN_OR_RETURN(layer.kv_heads, config.SizeOr(names.kv_heads, layer.query_heads, kHeadsMax));
  if (layer.query_heads % layer.kv_heads != 0) {
    return config.Fault(names.kv_heads, std::to_string(layer.kv_heads) + " does not divide " +
                                            std::string(names.heads) + " " +
                                            std::to_string(layer.query_heads));
  }
  ASSIGN_OR_RETURN(const auto head_dim, config.FindInt(names.head_dim));
  if (!head_dim && hidden_dim % layer.query_heads != 0) {
    return config.Fault(names.heads, std::to_string(layer.query_heads) + " does not divide " +
                                         std::string(names.hidden_dim) + " " +
                                         std::to_string(hidden_dim));
  }
  ASSIGN_OR_RETURN(layer.head_dim,
                   config.SizeOr(names.head_dim, hidden_dim / layer.query_heads, kHeadDimMax));
  if (layer.head_dim % 2 != 0 || layer.head_dim > kHeadDimMax) {
    return config.Fault(names.head_dim, std::to_string(layer.head_dim) +
                                            ", must be even and at most " +
                                            std::to_string(kHeadDimMax));
  }
  ASSIGN_OR_RETURN(layer.norm_eps, config.NumberOr(names.norm_eps, 1e-6, 1e-12, 0.1));
  return layer;
}

Result<ModelConfig> ReadSizes(const ConfigFields& config, const FieldNames& names) {
  ModelConfig model;
  model.architecture = kLlama.name;
  ASSIGN_OR_RETURN(model.hidden_dim, config.Size(names.hidden_dim, kWidthMax));
  ASSIGN_OR_RETURN(model.context_tokens, config.Size(names.context, kContextMax));
  ASSIGN_OR_RETURN(const LayerSpec layer, ReadLayer(config, names, model.hidden_dim));
  ASSIGN_OR_RETURN(const uint32_t layers, config.Size(names.layers, kLayersMax));
  model.layers.assign(layers, layer);
  model.final_norm_eps = layer.norm_eps;
  return model;
}

Result<ModelConfig> FromHuggingFace(const JsonFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, ReadSizes(config, kHuggingFaceNames));
  ASSIGN_OR_RETURN(model.vocab_size, config.Size("vocab_size", kVocabMax));
  ASSIGN_OR_RETURN(model.tied_embeddings, config.BoolOr("tie_word_embeddings", false));
  ASSIGN_OR_RETURN(const std::string activation, config.StringOr("hidden_act", "silu"));
  if (activation != "silu" && activation != "swish") {
    return config.Fault("hidden_act",
                        "\"" + Printable(activation) + "\" is not supported (silu is)");
  }
  ASSIGN_OR_RETURN(const bool attention_bias, config.BoolOr("attention_bias", false));
  ASSIGN_OR_RETURN(const bool mlp_bias, config.BoolOr("mlp_bias", false));
  ASSIGN_OR_RETURN(const RopeSpec rope,
                   HuggingFaceRope(config, model.layers[0].head_dim, model.context_tokens));
  for (LayerSpec& layer : model.layers) {
    layer.attention_bias = attention_bias;
    layer.mlp_bias = mlp_bias;
    layer.rope = rope;
  }
  return model;
}

// Parts of llama.cpp's "llama" that are other models in truth.
Status RefuseVariants(const GgufFields& config) {
  ASSIGN_OR_RETURN(const auto experts, config.FindInt("expert_count"));
  if (experts && *experts != 0) {
    return config.Fault("expert_count", "mixtures of experts are not supported");
  }
  ASSIGN_OR_RETURN(const bool causal, config.BoolOr("attention.causal", true));
  if (!causal) return config.Fault("attention.causal", "only causal attention is supported");
  return OkStatus();
}

Result<uint32_t> GgufVocabSize(const GgufFields& config) {
  const GgufTensor* embedding = config.file().FindTensor("token_embd.weight");
  if (embedding == nullptr) {
    return LyingFile(config.file().path(), "token_embd.weight", "the tensor is missing");
  }
  const uint64_t rows = embedding->view.shape[0];
  if (rows > kVocabMax) {
    return config.Fault("vocab_size", "more than " + std::to_string(kVocabMax) + " tokens");
  }
  return config.SizeOr("vocab_size", static_cast<uint32_t>(rows), kVocabMax);
}

Result<ModelConfig> FromGguf(const GgufFields& config) {
  RETURN_IF_ERROR(RefuseVariants(config));
  const GgufFile& file = config.file();
  ASSIGN_OR_RETURN(ModelConfig model, ReadSizes(config, kGgufNames));
  if (model.layers.size() > file.tensors().size()) {
    return config.Fault(kGgufNames.layers, "more layers than the file has tensors");
  }
  ASSIGN_OR_RETURN(model.vocab_size, GgufVocabSize(config));
  const uint32_t head_dim = model.layers[0].head_dim;
  ASSIGN_OR_RETURN(const uint32_t value_dim,
                   config.SizeOr("attention.value_length", head_dim, kHeadDimMax));
  if (value_dim != head_dim) {
    return config.Fault("attention.value_length", "must equal attention.key_length");
  }
  ASSIGN_OR_RETURN(const RopeSpec rope, GgufRope(config, head_dim, RopeLayout::kInterleaved));
  model.tied_embeddings = file.FindTensor("output.weight") == nullptr;
  for (LayerSpec& layer : model.layers) {
    layer.attention_bias = file.FindTensor("blk.0.attn_q.bias") != nullptr;
    layer.mlp_bias = file.FindTensor("blk.0.ffn_gate.bias") != nullptr;
    layer.rope = rope;
  }
  return model;
}

bool Ignores(std::string_view name) {
  // The head's copy of a tied embedding, and frequencies that early converters stored.
  return name == "lm_head.weight" || name == "rope_freqs.weight" ||
         name.ends_with(".self_attn.rotary_emb.inv_freq") || name.ends_with(".attn_rot_embd");
}

}  // namespace

const Architecture kLlama = {"llama",  "LlamaForCausalLM", FromHuggingFace,
                             FromGguf, DecoderTensors,     Ignores};

}  // namespace muselet
