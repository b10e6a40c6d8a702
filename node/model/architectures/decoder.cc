#include "node/model/architectures/decoder.h"

#include <cmath>
#include <utility>

#include "base/device/dequantize.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"

namespace muselet {
namespace {

constexpr double kThetaMax = 1e12;
constexpr double kFactorMax = 1e6;

Status ReadLlama3(const ConfigFields& fields, uint32_t context_tokens, RopeSpec& rope) {
  rope.scaling = RopeScaling::kLlama3;
  ASSIGN_OR_RETURN(rope.low_freq_factor, fields.NumberOr("low_freq_factor", 1.0, 1e-6, kFactorMax));
  ASSIGN_OR_RETURN(rope.high_freq_factor,
                   fields.NumberOr("high_freq_factor", 4.0, 1e-6, kFactorMax));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return fields.Fault("high_freq_factor", "must be greater than low_freq_factor");
  }
  ASSIGN_OR_RETURN(rope.original_context,
                   fields.SizeOr("original_max_position_embeddings", context_tokens, kContextMax));
  return OkStatus();
}

// `fields` is rope_parameters or rope_scaling.
Status ReadScaling(const ConfigFields& fields, uint32_t context_tokens, RopeSpec& rope) {
  ASSIGN_OR_RETURN(const std::string older, fields.StringOr("type", "default"));
  ASSIGN_OR_RETURN(const std::string type, fields.StringOr("rope_type", older));
  if (type == "default") return OkStatus();
  if (type != "linear" && type != "llama3") {
    return fields.Fault("rope_type", "\"" + Printable(type) +
                                         "\" is not supported (default, linear and llama3 are)");
  }
  ASSIGN_OR_RETURN(const auto factor, fields.FindNumber("factor"));
  if (!factor) return fields.Fault("factor", "missing");
  ASSIGN_OR_RETURN(rope.factor, fields.NumberOr("factor", 1.0, 1.0, kFactorMax));
  if (type == "llama3") return ReadLlama3(fields, context_tokens, rope);
  rope.scaling = RopeScaling::kLinear;
  return OkStatus();
}

Status ReadFrequencyDivisors(const GgufFile& file, RopeSpec& rope) {
  const GgufTensor* tensor = file.FindTensor("rope_freqs.weight");
  if (tensor == nullptr) return OkStatus();
  const uint64_t expected = rope.rotary_dim / 2;
  if (tensor->view.rank != 1 || tensor->view.count() != expected) {
    return LyingFile(file.path(), tensor->name,
                     tensor->view.ToString() + ", must be [" + std::to_string(expected) + "]");
  }
  rope.frequency_divisors.resize(expected);
  RETURN_IF_ERROR(DequantizeRow(tensor->view.dtype, tensor->view.data, expected,
                                rope.frequency_divisors.data()));
  for (const float divisor : rope.frequency_divisors) {
    if (!(divisor > 0.0F) || !std::isfinite(divisor)) {
      return LyingFile(file.path(), tensor->name, "a frequency divisor is not positive");
    }
  }
  return OkStatus();
}

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

Result<RopeSpec> HuggingFaceRope(const JsonFields& config, uint32_t head_dim,
                                 uint32_t context_tokens) {
  RopeSpec rope;
  rope.layout = RopeLayout::kHalves;
  rope.rotary_dim = head_dim;
  ASSIGN_OR_RETURN(rope.theta, config.NumberOr("rope_theta", 10000.0, 1.0, kThetaMax));
  ASSIGN_OR_RETURN(const auto parameters, config.FindObject("rope_parameters"));
  ASSIGN_OR_RETURN(const auto scaling, config.FindObject("rope_scaling"));
  if (parameters) {
    ASSIGN_OR_RETURN(rope.theta, parameters->NumberOr("rope_theta", rope.theta, 1.0, kThetaMax));
    RETURN_IF_ERROR(ReadScaling(*parameters, context_tokens, rope));
  } else if (scaling) {
    RETURN_IF_ERROR(ReadScaling(*scaling, context_tokens, rope));
  }
  return rope;
}

Result<RopeSpec> GgufRope(const GgufFields& config, uint32_t head_dim, RopeLayout layout) {
  RopeSpec rope;
  rope.layout = layout;
  ASSIGN_OR_RETURN(rope.theta, config.NumberOr("rope.freq_base", 10000.0, 1.0, kThetaMax));
  ASSIGN_OR_RETURN(rope.rotary_dim, config.SizeOr("rope.dimension_count", head_dim, kHeadDimMax));
  if (rope.rotary_dim % 2 != 0 || rope.rotary_dim > head_dim) {
    return config.Fault("rope.dimension_count", std::to_string(rope.rotary_dim) +
                                                    ", must be even and at most the head size " +
                                                    std::to_string(head_dim));
  }
  ASSIGN_OR_RETURN(const double older, config.NumberOr("rope.scale_linear", 1.0, 1.0, kFactorMax));
  ASSIGN_OR_RETURN(const std::string type,
                   config.StringOr("rope.scaling.type", older > 1.0 ? "linear" : "none"));
  if (type != "none" && type != "linear") {
    return config.Fault("rope.scaling.type",
                        "\"" + Printable(type) + "\" is not supported (none and linear are)");
  }
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    ASSIGN_OR_RETURN(rope.factor, config.NumberOr("rope.scaling.factor", older, 1.0, kFactorMax));
  }
  RETURN_IF_ERROR(ReadFrequencyDivisors(config.file(), rope));
  return rope;
}

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
