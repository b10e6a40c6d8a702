#include "node/model/architectures/qwen.h"

#include "node/model/architectures/decoder.h"
#include "node/model/architectures/decoder_config.h"
#include "node/model/architectures/llama.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"

namespace muselet {
namespace {

// With use_sliding_window, the layers from max_window_layers on have a window.
Status ReadQwenWindows(const JsonFields& config, ModelConfig& model) {
  ASSIGN_OR_RETURN(const bool used, config.BoolOr("use_sliding_window", false));
  if (!used) return OkStatus();
  ASSIGN_OR_RETURN(const uint32_t window, config.SizeOr("sliding_window", 4096, kContextMax));
  ASSIGN_OR_RETURN(const auto first, config.FindInt("max_window_layers"));
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const bool behind = static_cast<int64_t>(i) >= first.value_or(28);
    ASSIGN_OR_RETURN(const bool sliding, IsSliding(config, i, model.layers.size(), behind));
    if (sliding) model.layers[i].window_tokens = window;
  }
  return OkStatus();
}

Result<ModelConfig> Qwen2FromHuggingFace(const JsonFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceDecoder(config, kQwen2.name));
  for (LayerSpec& layer : model.layers) layer.attention_bias = true;
  RETURN_IF_ERROR(ReadQwenWindows(config, model));
  return model;
}

Result<ModelConfig> WithHeadNorms(const JsonFields& config, std::string_view name) {
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceDecoder(config, name, 128));
  ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  for (LayerSpec& layer : model.layers) {
    layer.head_norm = HeadNorm::kWeighted;
    layer.attention_bias = layer.output_bias = bias;
  }
  RETURN_IF_ERROR(ReadQwenWindows(config, model));
  return model;
}

Result<ModelConfig> Qwen3FromHuggingFace(const JsonFields& config) {
  return WithHeadNorms(config, kQwen3.name);
}

// mlp_only_layers names layers without experts.
Result<bool> IsDense(const JsonFields& config, size_t layer) {
  constexpr std::string_view kField = "mlp_only_layers";
  const Json* dense = FindMember(config.json(), kField);
  if (dense == nullptr) return false;
  if (!dense->is_array()) return config.Fault(kField, "expected a list of layers");
  for (const Json& number : *dense)
    if (number == layer) return true;
  return false;
}

Result<ModelConfig> Qwen3MoeFromHuggingFace(const JsonFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, WithHeadNorms(config, kQwen3Moe.name));
  ASSIGN_OR_RETURN(const uint32_t experts, config.Size("num_experts", kExpertsMax));
  ASSIGN_OR_RETURN(const uint32_t active, config.Size("num_experts_per_tok", experts));
  ASSIGN_OR_RETURN(const uint32_t size, config.Size("moe_intermediate_size", kWidthMax));
  ASSIGN_OR_RETURN(const bool renormalised, config.BoolOr("norm_topk_prob", false));
  ASSIGN_OR_RETURN(const uint32_t every, config.SizeOr("decoder_sparse_step", 1, kLayersMax));
  for (size_t i = 0; i < model.layers.size(); ++i) {
    ASSIGN_OR_RETURN(const bool dense, IsDense(config, i));
    if (dense || (i + 1) % every != 0) continue;
    LayerSpec& layer = model.layers[i];
    layer.experts = experts;
    layer.experts_active = active;
    layer.experts_renormalised = renormalised;
    layer.ffn_dim = size;
  }
  return model;
}

Result<ModelConfig> Qwen2FromGguf(const GgufFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, GgufDecoder(config, kQwen2.name, RopeLayout::kHalves));
  for (LayerSpec& layer : model.layers) layer.attention_bias = true;
  return model;
}

Result<ModelConfig> Qwen3FromGguf(const GgufFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, GgufDecoder(config, kQwen3.name, RopeLayout::kHalves));
  for (LayerSpec& layer : model.layers) layer.head_norm = HeadNorm::kWeighted;
  return model;
}

Result<ModelConfig> Qwen3MoeFromGguf(const GgufFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, GgufDecoder(config, kQwen3Moe.name, RopeLayout::kHalves));
  for (LayerSpec& layer : model.layers) layer.head_norm = HeadNorm::kWeighted;
  RETURN_IF_ERROR(ReadGgufExperts(config, model));
  return model;
}

std::vector<TensorSpec> Tensors(const ModelConfig& config, TensorNaming naming) {
  return DecoderTensors(config, naming);
}

}  // namespace

const Architecture kQwen2 = {
    "qwen2", "Qwen2ForCausalLM", "qwen2", Qwen2FromHuggingFace, Qwen2FromGguf,
    Tensors, IgnoresCopies};
const Architecture kQwen3 = {
    "qwen3", "Qwen3ForCausalLM", "qwen3", Qwen3FromHuggingFace, Qwen3FromGguf,
    Tensors, IgnoresCopies};
const Architecture kQwen3Moe = {
    "qwen3moe", "Qwen3MoeForCausalLM", "qwen3moe", Qwen3MoeFromHuggingFace, Qwen3MoeFromGguf,
    Tensors,    IgnoresCopies};

}  // namespace muselet
