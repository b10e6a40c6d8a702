#include "node/model/architectures/gemma3.h"

#include <cmath>

#include "node/model/architectures/decoder.h"
#include "node/model/architectures/decoder_config.h"
#include "node/model/architectures/llama.h"
#include "node/model/architectures/rope_fields.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"

namespace muselet {
namespace {

constexpr double kGlobalTheta = 1'000'000.0;
constexpr double kLocalTheta = 10'000.0;
constexpr uint32_t kPattern = 6;  // every sixth layer is global

struct Rotations {
  RopeSpec global, local;
};

// Newer configs have an object for each type of layer, older ones fields beside each other.
Result<Rotations> ReadRotations(const JsonFields& config, const ModelConfig& model) {
  const uint32_t head_dim = model.layers[0].head_dim, context = model.context_tokens;
  Rotations out;
  ASSIGN_OR_RETURN(const auto both, config.FindObject("rope_parameters"));
  if (both &&
      (both->json().contains("full_attention") || both->json().contains("sliding_attention"))) {
    const JsonFields none(config.where(), Json::object());
    ASSIGN_OR_RETURN(const auto global, both->FindObject("full_attention"));
    ASSIGN_OR_RETURN(const auto local, both->FindObject("sliding_attention"));
    ASSIGN_OR_RETURN(out.global, HuggingFaceRopeObject(global ? *global : none, head_dim, context,
                                                       kGlobalTheta));
    ASSIGN_OR_RETURN(out.local,
                     HuggingFaceRopeObject(local ? *local : none, head_dim, context, kLocalTheta));
    return out;
  }
  Json with_default = config.json();
  if (!with_default.contains("rope_theta") && !both) with_default["rope_theta"] = kGlobalTheta;
  ASSIGN_OR_RETURN(out.global, HuggingFaceRope(JsonFields(config.where(), std::move(with_default)),
                                               head_dim, context));
  out.local.layout = RopeLayout::kHalves;
  out.local.rotary_dim = head_dim;
  ASSIGN_OR_RETURN(out.local.theta,
                   config.NumberOr("rope_local_base_freq", kLocalTheta, 1.0, 1e12));
  return out;
}

// What is the same in both formats.
void FillFamily(ModelConfig& model) {
  model.embedding_scale = std::sqrt(static_cast<double>(model.hidden_dim));
  for (LayerSpec& layer : model.layers) {
    layer.activation = Activation::kGeluTanh;
    layer.post_norms = true;
    layer.post_norm_eps = layer.norm_eps;
    layer.head_norm = HeadNorm::kWeighted;
  }
}

Status ReadLayerKinds(const JsonFields& config, ModelConfig& model) {
  ASSIGN_OR_RETURN(const uint32_t window, config.SizeOr("sliding_window", 4096, kContextMax));
  ASSIGN_OR_RETURN(uint32_t pattern,
                   config.SizeOr("_sliding_window_pattern", kPattern, kLayersMax));
  ASSIGN_OR_RETURN(pattern, config.SizeOr("sliding_window_pattern", pattern, kLayersMax));
  ASSIGN_OR_RETURN(const Rotations rotations, ReadRotations(config, model));
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const bool local = (i + 1) % pattern != 0;
    ASSIGN_OR_RETURN(const bool sliding, IsSliding(config, i, model.layers.size(), local));
    model.layers[i].window_tokens = sliding ? window : 0;
    model.layers[i].rope = sliding ? rotations.local : rotations.global;
  }
  return OkStatus();
}

Result<ModelConfig> FromHuggingFace(const JsonFields& config) {
  RETURN_IF_ERROR(RefuseIfSet(config, "attn_logit_softcapping"));
  ASSIGN_OR_RETURN(const bool both_ways, config.BoolOr("use_bidirectional_attention", false));
  if (both_ways) return config.Fault("use_bidirectional_attention", "true is not supported");
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceSizes(config, kGemma3.name, 256));
  ASSIGN_OR_RETURN(model.tied_embeddings, config.BoolOr("tie_word_embeddings", true));
  ASSIGN_OR_RETURN(const Activation activation,
                   HuggingFaceActivation(config, "hidden_activation", "gelu_pytorch_tanh"));
  ASSIGN_OR_RETURN(const double scalar, config.NumberOr("query_pre_attn_scalar", 256.0, 1e-3, 1e6));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  ASSIGN_OR_RETURN(model.logit_soft_cap, config.NumberOr("final_logit_softcapping", 0, 0, 1e6));
  FillFamily(model);
  model.centred_final_norm = true;
  for (LayerSpec& layer : model.layers) {
    layer.activation = activation;
    layer.centred_norms = true;
    layer.attention_scale = 1.0 / std::sqrt(scalar);
    layer.attention_bias = layer.output_bias = bias;
  }
  RETURN_IF_ERROR(ReadLayerKinds(config, model));
  return model;
}

Result<ModelConfig> FromGguf(const GgufFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, GgufDecoder(config, kGemma3.name, RopeLayout::kHalves));
  FillFamily(model);
  ASSIGN_OR_RETURN(const uint32_t window, config.Size("attention.sliding_window", kContextMax));
  ASSIGN_OR_RETURN(const uint32_t pattern,
                   config.SizeOr("attention.sliding_window_pattern", kPattern, kLayersMax));
  ASSIGN_OR_RETURN(const double theta,
                   config.NumberOr("rope.freq_base_swa", kLocalTheta, 1.0, 1e12));
  ASSIGN_OR_RETURN(model.logit_soft_cap, config.NumberOr("final_logit_softcapping", 0, 0, 1e6));
  for (size_t i = 0; i < model.layers.size(); ++i) {
    LayerSpec& layer = model.layers[i];
    if ((i + 1) % pattern == 0) continue;
    layer.window_tokens = window;
    layer.rope = RopeSpec();  // long contexts are scaled on the global layers only
    layer.rope.rotary_dim = layer.head_dim;
    layer.rope.theta = theta;
  }
  return model;
}

std::vector<TensorSpec> Tensors(const ModelConfig& config, TensorNaming naming) {
  return DecoderTensors(config, naming);
}

}  // namespace

const Architecture kGemma3 = {"gemma3", "Gemma3ForCausalLM", "gemma3", FromHuggingFace, FromGguf,
                              Tensors,  IgnoresCopies};

}  // namespace muselet
