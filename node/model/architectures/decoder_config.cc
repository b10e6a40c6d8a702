#include "node/model/architectures/decoder_config.h"

#include <cmath>

#include "node/model/architectures/rope_fields.h"
#include "node/model/file_fault.h"

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
                            uint32_t hidden_dim, uint32_t head_dim_default) {
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
  if (!head_dim && head_dim_default == 0 && hidden_dim % layer.query_heads != 0) {
    return config.Fault(names.heads, std::to_string(layer.query_heads) + " does not divide " +
                                         std::string(names.hidden_dim) + " " +
                                         std::to_string(hidden_dim));
  }
  const uint32_t fallback =
      head_dim_default > 0 ? head_dim_default : hidden_dim / layer.query_heads;
  ASSIGN_OR_RETURN(layer.head_dim, config.SizeOr(names.head_dim, fallback, kHeadDimMax));
  if (layer.head_dim % 2 != 0 || layer.head_dim > kHeadDimMax) {
    return config.Fault(names.head_dim, std::to_string(layer.head_dim) +
                                            ", must be even and at most " +
                                            std::to_string(kHeadDimMax));
  }
  ASSIGN_OR_RETURN(layer.norm_eps, config.NumberOr(names.norm_eps, 1e-6, 1e-12, 0.1));
  return layer;
}

Result<ModelConfig> ReadSizes(const ConfigFields& config, const FieldNames& names,
                              std::string_view architecture, uint32_t head_dim_default) {
  ModelConfig model;
  model.architecture = architecture;
  ASSIGN_OR_RETURN(model.hidden_dim, config.Size(names.hidden_dim, kWidthMax));
  ASSIGN_OR_RETURN(model.context_tokens, config.Size(names.context, kContextMax));
  ASSIGN_OR_RETURN(const LayerSpec layer,
                   ReadLayer(config, names, model.hidden_dim, head_dim_default));
  ASSIGN_OR_RETURN(const uint32_t layers, config.Size(names.layers, kLayersMax));
  model.layers.assign(layers, layer);
  model.final_norm_eps = layer.norm_eps;
  return model;
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

// Parts of llama.cpp's names that are other models in truth.
Status RefuseVariants(const GgufFields& config) {
  ASSIGN_OR_RETURN(const bool causal, config.BoolOr("attention.causal", true));
  if (!causal) return config.Fault("attention.causal", "only causal attention is supported");
  return OkStatus();
}

}  // namespace

Result<Activation> HuggingFaceActivation(const JsonFields& config, std::string_view field,
                                         std::string_view fallback) {
  ASSIGN_OR_RETURN(const std::string name, config.StringOr(field, fallback));
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::kGeluTanh;
  return config.Fault(
      field, "\"" + Printable(name) + "\" is not supported (silu and gelu_pytorch_tanh are)");
}

Result<ModelConfig> HuggingFaceSizes(const JsonFields& config, std::string_view architecture,
                                     uint32_t head_dim_default) {
  ASSIGN_OR_RETURN(ModelConfig model,
                   ReadSizes(config, kHuggingFaceNames, architecture, head_dim_default));
  ASSIGN_OR_RETURN(model.vocab_size, config.Size("vocab_size", kVocabMax));
  ASSIGN_OR_RETURN(model.tied_embeddings, config.BoolOr("tie_word_embeddings", false));
  return model;
}

Result<ModelConfig> HuggingFaceDecoder(const JsonFields& config, std::string_view architecture,
                                       uint32_t head_dim_default) {
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceSizes(config, architecture, head_dim_default));
  ASSIGN_OR_RETURN(const Activation activation,
                   HuggingFaceActivation(config, "hidden_act", "silu"));
  ASSIGN_OR_RETURN(const RopeSpec rope,
                   HuggingFaceRope(config, model.layers[0].head_dim, model.context_tokens));
  for (LayerSpec& layer : model.layers) {
    layer.activation = activation;
    layer.rope = rope;
  }
  return model;
}

Result<ModelConfig> GgufSizes(const GgufFields& config, std::string_view architecture) {
  RETURN_IF_ERROR(RefuseVariants(config));
  const GgufFile& file = config.file();
  ASSIGN_OR_RETURN(ModelConfig model, ReadSizes(config, kGgufNames, architecture, 0));
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
  model.tied_embeddings = file.FindTensor("output.weight") == nullptr;
  return model;
}

Result<ModelConfig> GgufDecoder(const GgufFields& config, std::string_view architecture,
                                RopeLayout layout) {
  ASSIGN_OR_RETURN(ModelConfig model, GgufSizes(config, architecture));
  ASSIGN_OR_RETURN(const RopeSpec rope, GgufRope(config, model.layers[0].head_dim, layout));
  for (LayerSpec& layer : model.layers) layer.rope = rope;
  return model;
}

Result<bool> IsSliding(const JsonFields& config, size_t layer, size_t layers, bool fallback) {
  constexpr std::string_view kField = "layer_types";
  const Json* types = FindMember(config.json(), kField);
  if (types == nullptr || types->is_null()) return fallback;
  if (!types->is_array() || types->size() != layers)
    return config.Fault(kField, "expected one for each of " + std::to_string(layers) + " layers");
  const Json& type = (*types)[layer];
  if (type == "sliding_attention") return true;
  if (type == "full_attention") return false;
  return config.Fault(kField, Printable(WriteJson(type)) +
                                  " is not supported (sliding_attention and full_attention are)");
}

Status ReadWindows(const JsonFields& config, uint32_t window_default, ModelConfig& model) {
  uint32_t window = config.json().contains("sliding_window") ? 0 : window_default;
  ASSIGN_OR_RETURN(window, config.SizeOr("sliding_window", window, kContextMax));
  for (size_t i = 0; i < model.layers.size(); ++i) {
    ASSIGN_OR_RETURN(const bool sliding, IsSliding(config, i, model.layers.size(), true));
    if (sliding) model.layers[i].window_tokens = window;
  }
  return OkStatus();
}

Status ReadGgufExperts(const GgufFields& config, ModelConfig& model) {
  ASSIGN_OR_RETURN(const uint32_t experts, config.Size("expert_count", kExpertsMax));
  ASSIGN_OR_RETURN(const uint32_t active, config.Size("expert_used_count", experts));
  ASSIGN_OR_RETURN(const uint32_t size,
                   config.SizeOr("expert_feed_forward_length", model.layers[0].ffn_dim, kWidthMax));
  for (LayerSpec& layer : model.layers) {
    layer.experts = experts;
    layer.experts_active = active;
    layer.ffn_dim = size;
  }
  return OkStatus();
}

Status RefuseIfSet(const ConfigFields& config, std::string_view field) {
  ASSIGN_OR_RETURN(const auto value, config.FindNumber(field));
  if (value && *value != 0.0) return config.Fault(field, "is not supported (absent or 0 is)");
  return OkStatus();
}

}  // namespace muselet
