#include "node/model/architectures/muse_glimmer.h"

#include "node/model/architectures/decoder.h"
#include "node/model/architectures/decoder_config.h"
#include "node/model/architectures/llama.h"
#include "node/model/architectures/rope_fields.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"

namespace muselet {
namespace {

// What the published model has where its config is silent.
constexpr uint32_t kHeadDim = 128;
constexpr uint32_t kWindow = 2048;
constexpr uint32_t kPattern = 4;

// Layers that attend to all positions, unless the config lists the kinds.
bool IsFull(size_t layer, size_t layers) {
  return (layers - 1 - layer) % kPattern == 0;
}

// layer_rope_theta: 0 = no position code; all others are one theta, as the reference computes.
Result<bool> IsRotated(const JsonFields& config, size_t layer, size_t layers, double theta) {
  constexpr std::string_view kField = "layer_rope_theta";
  const Json* thetas = FindMember(config.json(), kField);
  if (thetas == nullptr) return !IsFull(layer, layers);
  if (!thetas->is_array() || thetas->size() != layers)
    return config.Fault(kField, "expected one for each of " + std::to_string(layers) + " layers");
  const Json& own = (*thetas)[layer];
  if (own == 0) return false;
  if (!own.is_number() || own.get<double>() != theta)
    return config.Fault(
        kField, Printable(WriteJson(own)) + " is neither 0 nor the rope_theta of rope_parameters");
  return true;
}

Status ReadLayerKinds(const JsonFields& config, ModelConfig& model) {
  const size_t layers = model.layers.size();
  ASSIGN_OR_RETURN(const uint32_t window, config.SizeOr("sliding_window", kWindow, kContextMax));
  ASSIGN_OR_RETURN(const RopeSpec rope,
                   HuggingFaceRope(config, model.layers[0].head_dim, model.context_tokens));
  for (size_t i = 0; i < layers; ++i) {
    ASSIGN_OR_RETURN(const bool sliding, IsSliding(config, i, layers, !IsFull(i, layers)));
    ASSIGN_OR_RETURN(const bool rotated, IsRotated(config, i, layers, rope.theta));
    model.layers[i].window_tokens = sliding ? window : 0;
    if (rotated) model.layers[i].rope = rope;
  }
  return OkStatus();
}

Result<ModelConfig> FromHuggingFace(const JsonFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceSizes(config, kMuseGlimmer.name, kHeadDim));
  ASSIGN_OR_RETURN(const Activation activation,
                   HuggingFaceActivation(config, "hidden_activation", "silu"));
  ASSIGN_OR_RETURN(const double query_scale, config.NumberOr("qk_scale_factor", 3.87, 1e-6, 1e6));
  ASSIGN_OR_RETURN(const double post_eps, config.NumberOr("post_norm_eps", 1e-8, 1e-12, 0.1));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  ASSIGN_OR_RETURN(model.logit_scale,
                   config.NumberOr("output_multiplier", 0.19611613513818404, 1e-9, 1e6));
  ASSIGN_OR_RETURN(model.logit_soft_cap,
                   config.NumberOr("final_logit_softcapping", 20.0, 1e-3, 1e6));
  model.embedding_norm_eps = model.final_norm_eps;
  for (LayerSpec& layer : model.layers) {
    layer.activation = activation;
    layer.output_gate = layer.post_norms = layer.centred_norms = true;
    layer.post_norm_eps = post_eps;
    layer.head_norm = HeadNorm::kPlain;
    layer.query_scale = query_scale;
    layer.attention_bias = layer.output_bias = bias;
  }
  RETURN_IF_ERROR(ReadLayerKinds(config, model));
  return model;
}

std::vector<TensorSpec> Tensors(const ModelConfig& config, TensorNaming naming) {
  DecoderNames names;
  names.prefix = "model.language_model.";
  return DecoderTensors(config, naming, names);
}

}  // namespace

const Architecture kMuseGlimmer = {"muse_glimmer",
                                   "MuseGlimmerForConditionalGeneration",
                                   "",
                                   FromHuggingFace,
                                   nullptr,
                                   Tensors,
                                   IgnoresCopies,
                                   "text_config",
                                   "model.vision_"};

}  // namespace muselet
