#include "node/model/architectures/phi3.h"

#include "node/model/architectures/decoder.h"
#include "node/model/architectures/decoder_config.h"
#include "node/model/architectures/llama.h"
#include "node/model/architectures/rope_fields.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"

namespace muselet {
namespace {

Result<ModelConfig> FromHuggingFace(const JsonFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceSizes(config, kPhi3.name));
  ASSIGN_OR_RETURN(const Activation activation,
                   HuggingFaceActivation(config, "hidden_act", "silu"));
  ASSIGN_OR_RETURN(const RopeSpec rope,
                   HuggingFaceRope(config, model.layers[0].head_dim, model.context_tokens, true));
  for (LayerSpec& layer : model.layers) {
    layer.activation = activation;
    layer.rope = rope;
  }
  RETURN_IF_ERROR(ReadWindows(config, 0, model));
  return model;
}

Result<ModelConfig> FromGguf(const GgufFields& config) {
  for (const std::string_view name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
    if (config.file().FindTensor(name) != nullptr)
      return BadField(config.file().path(), name, "the longrope scaling is not supported");
  }
  ASSIGN_OR_RETURN(ModelConfig model, GgufDecoder(config, kPhi3.name, RopeLayout::kHalves));
  ASSIGN_OR_RETURN(const uint32_t window,
                   config.SizeOr("attention.sliding_window", 0, kContextMax));
  for (LayerSpec& layer : model.layers) layer.window_tokens = window;
  return model;
}

std::vector<TensorSpec> Tensors(const ModelConfig& config, TensorNaming naming) {
  DecoderNames names;
  names.fused = true;
  return DecoderTensors(config, naming, names);
}

}  // namespace

const Architecture kPhi3 = {"phi3",   "Phi3ForCausalLM", "phi3",       FromHuggingFace,
                            FromGguf, Tensors,           IgnoresCopies};

}  // namespace muselet
