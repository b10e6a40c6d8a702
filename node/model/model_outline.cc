#include "node/model/model_outline.h"

#include <filesystem>
#include <memory>

#include "node/model/architectures/decoder_config.h"
#include "node/model/checkpoint.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"
#include "node/model/memory_plan.h"

namespace muselet {
namespace {

bool EndsWith(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The first of some fields that is there.
Result<uint32_t> FirstSize(const JsonFields& config, std::initializer_list<std::string_view> fields,
                           uint32_t max) {
  for (const std::string_view field : fields) {
    ASSIGN_OR_RETURN(const uint32_t value, config.SizeOr(field, 0, max));
    if (value > 0) return value;
  }
  return 0U;
}

Status RefuseUnplanned(const JsonFields& config) {
  for (const std::string_view field :
       {"kv_lora_rank", "shared_expert_intermediate_size", "n_shared_experts"}) {
    ASSIGN_OR_RETURN(const uint32_t size, config.SizeOr(field, 0, kWidthMax));
    if (size > 0) return config.Fault(field, "models of this kind cannot be planned for");
  }
  return OkStatus();
}

Status ReadExperts(const JsonFields& config, LayerSpec& layer) {
  ASSIGN_OR_RETURN(
      layer.experts,
      FirstSize(config, {"num_experts", "num_local_experts", "n_routed_experts"}, kWidthMax));
  if (layer.experts == 0) return OkStatus();
  ASSIGN_OR_RETURN(layer.experts_active, config.Size("num_experts_per_tok", layer.experts));
  ASSIGN_OR_RETURN(layer.ffn_dim, config.SizeOr("moe_intermediate_size", layer.ffn_dim, kWidthMax));
  return OkStatus();
}

Result<LayerSpec> ReadLayer(const JsonFields& config, uint32_t hidden) {
  LayerSpec layer;
  ASSIGN_OR_RETURN(layer.query_heads, config.Size("num_attention_heads", kHeadsMax));
  ASSIGN_OR_RETURN(layer.kv_heads,
                   config.SizeOr("num_key_value_heads", layer.query_heads, kHeadsMax));
  if (layer.query_heads % layer.kv_heads != 0)
    return config.Fault("num_key_value_heads", "does not divide num_attention_heads");
  ASSIGN_OR_RETURN(layer.head_dim,
                   config.SizeOr("head_dim", hidden / layer.query_heads, kHeadDimMax));
  if (layer.head_dim == 0) return config.Fault("head_dim", "missing");
  ASSIGN_OR_RETURN(layer.ffn_dim, config.Size("intermediate_size", kWidthMax));
  ASSIGN_OR_RETURN(layer.attention_bias, config.BoolOr("attention_bias", false));
  layer.output_bias = layer.attention_bias;
  ASSIGN_OR_RETURN(layer.mlp_bias, config.BoolOr("mlp_bias", false));
  ASSIGN_OR_RETURN(const std::string type, config.StringOr("model_type", ""));
  layer.output_gate = type.rfind("muse_glimmer", 0) == 0;
  RETURN_IF_ERROR(ReadExperts(config, layer));
  return layer;
}

// Layers with a window: those that layer_types names, or all if it is absent.
Status ReadWindows(const JsonFields& config, ModelConfig& model) {
  ASSIGN_OR_RETURN(const bool used, config.BoolOr("use_sliding_window", true));
  ASSIGN_OR_RETURN(const uint32_t window, config.SizeOr("sliding_window", 0, kContextMax));
  if (!used || window == 0) return OkStatus();
  const Json* types = FindMember(config.json(), "layer_types");
  if (types != nullptr && (!types->is_array() || types->size() != model.layers.size()))
    return config.Fault("layer_types", "expected one for every layer");
  for (size_t i = 0; i < model.layers.size(); ++i)
    if (types == nullptr || (*types)[i] == "sliding_attention")
      model.layers[i].window_tokens = window;
  return OkStatus();
}

Result<DType> ReadFormat(const JsonFields& config) {
  ASSIGN_OR_RETURN(const std::string old_name, config.StringOr("torch_dtype", "bfloat16"));
  ASSIGN_OR_RETURN(const std::string name, config.StringOr("dtype", old_name));
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float16") return DType::kF16;
  if (name == "float32") return DType::kF32;
  return config.Fault("dtype",
                      "\"" + Printable(name) + "\" is not known; give the weights' format");
}

Result<ModelOutline> OutlineOfConfig(const JsonFields& file) {
  // Models that see and hear have their text part in an object of its own.
  ASSIGN_OR_RETURN(const std::optional<JsonFields> text, file.FindObject("text_config"));
  const JsonFields& config = text ? *text : file;
  ModelOutline outline;
  ModelConfig& model = outline.config;
  RETURN_IF_ERROR(RefuseUnplanned(config));
  ASSIGN_OR_RETURN(model.architecture, config.StringOr("model_type", "unknown"));
  ASSIGN_OR_RETURN(model.vocab_size, config.Size("vocab_size", kVocabMax));
  ASSIGN_OR_RETURN(model.hidden_dim, config.Size("hidden_size", kWidthMax));
  ASSIGN_OR_RETURN(model.context_tokens, config.Size("max_position_embeddings", kContextMax));
  ASSIGN_OR_RETURN(model.tied_embeddings, config.BoolOr("tie_word_embeddings", false));
  ASSIGN_OR_RETURN(const LayerSpec layer, ReadLayer(config, model.hidden_dim));
  ASSIGN_OR_RETURN(const uint32_t layers, config.Size("num_hidden_layers", kLayersMax));
  model.layers.assign(layers, layer);
  RETURN_IF_ERROR(ReadWindows(config, model));
  ASSIGN_OR_RETURN(const DType dtype, ReadFormat(file));
  outline.format = [dtype](std::string_view) { return dtype; };
  return outline;
}

// Of a checkpoint that can be opened, otherwise of the config.json that stands there.
Result<ModelOutline> ReadFiles(const std::string& path) {
  if (EndsWith(path, ".json")) {
    ASSIGN_OR_RETURN(const JsonFields config, JsonFields::ReadFile(path));
    return OutlineOfConfig(config);
  }
  auto opened = Checkpoint::Open(path);
  if (!opened.ok()) {
    const std::string config_path = path + "/config.json";
    if (!IsPresent(config_path)) return opened.status();
    ASSIGN_OR_RETURN(const JsonFields config, JsonFields::ReadFile(config_path));
    return OutlineOfConfig(config);
  }
  const std::shared_ptr<const Checkpoint> checkpoint = std::move(opened).value();
  ModelOutline outline;
  outline.config = checkpoint->config();
  outline.format = [checkpoint](std::string_view name) { return FormatsOf(*checkpoint)(name); };
  return outline;
}

}  // namespace

std::optional<DType> ParseDType(std::string_view name) {
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
        DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K})
    if (Traits(dtype).name == name) return dtype;
  return std::nullopt;
}

Result<ModelOutline> ReadModelOutline(const std::string& path, std::optional<DType> weights) {
  ASSIGN_OR_RETURN(ModelOutline outline, ReadFiles(path));
  if (weights) outline.format = [dtype = *weights](std::string_view) { return dtype; };
  return outline;
}

}  // namespace muselet
