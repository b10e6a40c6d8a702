// What the decoder-only families share: the map of weight names.
#pragma once

#include <string_view>
#include <vector>

#include "node/model/model_config.h"
#include "node/model/tensor_table.h"

namespace muselet {

// How a Hugging Face checkpoint names what differs between families.
struct DecoderNames {
  std::string_view prefix = "model.";  // of all but the head
  bool fused = false;                  // qkv_proj and gate_up_proj instead of their parts
  // Of layers with experts: the router, and "<experts>E.<gate>" for expert E.
  std::string_view router = "mlp.gate.weight";
  std::string_view experts = "mlp.experts.";
  std::string_view gate = "gate_proj.weight";
  std::string_view up = "up_proj.weight";
  std::string_view down = "down_proj.weight";
};

// The tensors of a decoder with gated feed-forward parts, as node/model/checkpoint.h lists them. In
// GGUF experts stand side by side in one tensor, and q, k, v and gate, up do where names.fused says
// so.
std::vector<TensorSpec> DecoderTensors(const ModelConfig& config, TensorNaming naming,
                                       const DecoderNames& names = {});

}  // namespace muselet
