#include "node/model/architectures/llama.h"

#include "node/model/architectures/decoder.h"
#include "node/model/architectures/decoder_config.h"
#include "node/model/architectures/rope_fields.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"

namespace muselet {
namespace {

Result<ModelConfig> LlamaFromHuggingFace(const JsonFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceDecoder(config, kLlama.name));
  ASSIGN_OR_RETURN(const bool attention_bias, config.BoolOr("attention_bias", false));
  ASSIGN_OR_RETURN(const bool mlp_bias, config.BoolOr("mlp_bias", false));
  for (LayerSpec& layer : model.layers) {
    layer.attention_bias = layer.output_bias = attention_bias;
    layer.mlp_bias = mlp_bias;
  }
  return model;
}

Result<ModelConfig> MistralFromHuggingFace(const JsonFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceDecoder(config, kMistral.name));
  RETURN_IF_ERROR(ReadWindows(config, 0, model));
  return model;
}

Result<ModelConfig> MixtralFromHuggingFace(const JsonFields& config) {
  ASSIGN_OR_RETURN(ModelConfig model, HuggingFaceDecoder(config, kMixtral.name));
  RETURN_IF_ERROR(ReadWindows(config, 0, model));
  ASSIGN_OR_RETURN(const uint32_t experts, config.Size("num_local_experts", kExpertsMax));
  ASSIGN_OR_RETURN(const uint32_t active, config.Size("num_experts_per_tok", experts));
  for (LayerSpec& layer : model.layers) {
    layer.experts = experts;
    layer.experts_active = active;
  }
  return model;
}

// All three: experts, a window and biases are there if the file has them.
Result<ModelConfig> FromGguf(const GgufFields& config) {
  const GgufFile& file = config.file();
  ASSIGN_OR_RETURN(ModelConfig model, GgufDecoder(config, kLlama.name, RopeLayout::kInterleaved));
  ASSIGN_OR_RETURN(const auto experts, config.FindInt("expert_count"));
  if (experts && *experts != 0) {
    RETURN_IF_ERROR(ReadGgufExperts(config, model));
    model.architecture = kMixtral.name;
  }
  ASSIGN_OR_RETURN(const uint32_t window,
                   config.SizeOr("attention.sliding_window", 0, kContextMax));
  for (LayerSpec& layer : model.layers) {
    layer.window_tokens = window;
    layer.attention_bias = file.FindTensor("blk.0.attn_q.bias") != nullptr;
    layer.output_bias = file.FindTensor("blk.0.attn_output.bias") != nullptr;
    layer.mlp_bias = file.FindTensor("blk.0.ffn_gate.bias") != nullptr;
  }
  return model;
}

std::vector<TensorSpec> Tensors(const ModelConfig& config, TensorNaming naming) {
  return DecoderTensors(config, naming);
}

std::vector<TensorSpec> MixtralTensors(const ModelConfig& config, TensorNaming naming) {
  DecoderNames names;
  names.router = "block_sparse_moe.gate.weight";
  names.experts = "block_sparse_moe.experts.";
  names.gate = "w1.weight";
  names.up = "w3.weight";
  names.down = "w2.weight";
  return DecoderTensors(config, naming, names);
}

}  // namespace

bool IgnoresCopies(std::string_view name) {
  return name == "lm_head.weight" || name == "rope_freqs.weight" ||
         name.ends_with(".self_attn.rotary_emb.inv_freq") || name.ends_with(".attn_rot_embd");
}

const Architecture kLlama = {"llama", "LlamaForCausalLM", "llama", LlamaFromHuggingFace, FromGguf,
                             Tensors, IgnoresCopies};
const Architecture kMistral = {"mistral", "MistralForCausalLM", "", MistralFromHuggingFace, nullptr,
                               Tensors,   IgnoresCopies};
const Architecture kMixtral = {
    "mixtral", "MixtralForCausalLM", "",           MixtralFromHuggingFace,
    nullptr,   MixtralTensors,       IgnoresCopies};

}  // namespace muselet
