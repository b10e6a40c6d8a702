#include "node/model/model_info.h"

#include <algorithm>

#include "node/model/weights.h"

namespace muselet {
namespace {

Status CheckLayer(const LayerSpec& spec) {
  if (spec.kv_heads == 0 || spec.head_dim == 0 || spec.ffn_dim == 0 || spec.query_heads == 0)
    return InvalidArgument("a layer without heads or feed-forward columns cannot be computed");
  if (spec.query_heads % spec.kv_heads != 0) {
    return InvalidArgument(std::to_string(spec.query_heads) + " attention heads do not share " +
                           std::to_string(spec.kv_heads) + " key/value heads evenly");
  }
  if (spec.experts > 0 &&
      (spec.post_norms || spec.mlp_bias || spec.activation != Activation::kSilu ||
       spec.experts_active == 0 || spec.experts_active > spec.experts))
    return InvalidArgument(
        "layers with experts can be computed with silu only, without biases and post norms");
  const RopeSpec& rope = spec.rope;
  if (rope.rotary_dim % 2 != 0 || rope.rotary_dim > spec.head_dim)
    return InvalidArgument("rotary dimension " + std::to_string(rope.rotary_dim) +
                           " does not fit heads of " + std::to_string(spec.head_dim));
  if (!rope.frequency_divisors.empty() && rope.frequency_divisors.size() != rope.rotary_dim / 2)
    return InvalidArgument("rope_freqs does not have one value a rotated pair");
  return OkStatus();
}

}  // namespace

Status CheckComputable(const ModelConfig& config) {
  if (config.layers.empty() || config.hidden_dim == 0 || config.vocab_size == 0)
    return InvalidArgument("a model without layers or vocabulary cannot be computed");
  for (const LayerSpec& spec : config.layers) RETURN_IF_ERROR(CheckLayer(spec));
  return OkStatus();
}

ModelInfo DescribeModel(const Checkpoint& checkpoint, const EngineOptions& options,
                        std::vector<KvGroupInfo> groups, const Ops& ops) {
  const ModelConfig& config = checkpoint.config();
  const WeightSummary weights = SummariseWeights(checkpoint);
  ModelInfo info;
  info.architecture = config.architecture;
  info.model_digest = checkpoint.Digest();
  info.vocab_size = config.vocab_size;
  info.context_tokens = options.context_tokens == 0
                            ? config.context_tokens
                            : std::min(options.context_tokens, config.context_tokens);
  info.block_tokens = KvCache::kBlockTokens;
  info.kv_groups = std::move(groups);
  info.parameter_count = weights.parameter_count;

  std::string formats;
  bool quantized = false;
  for (const DType dtype : weights.matrix_dtypes) {
    if (!formats.empty()) formats += '+';
    formats += Traits(dtype).name;
    quantized |= IsQuantized(dtype);
  }
  info.numerics_id = ops.LayoutName() + "/" + formats + "/" +
                     (quantized ? ops.ActivationName() : "f32") + "/kv-" +
                     std::string(Traits(KvDType(options)).name) + "/strict";
  return info;
}

}  // namespace muselet
