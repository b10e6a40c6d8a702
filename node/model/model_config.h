// What a model is, independent of the file it came from: sizes and, per layer, which variant of
// each part it uses. A new architecture is a function that fills these from its config
// (node/model/architectures) and a map of weight names.
//
// Plain values; immutable after loading.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/types.h"

namespace muselet {

enum class RopeLayout : uint8_t {
  kHalves,       // pairs (i, i + D/2): Hugging Face checkpoints
  kInterleaved,  // pairs (2i, 2i + 1): Llama weights as llama.cpp's converter permutes them into
                 // GGUF
};

// How rotation frequencies are changed for long contexts. kLlama3: Hugging Face
// modeling_rope_utils.py, _compute_llama3_parameters; kLinear: positions divided by factor.
enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3 };

struct RopeSpec {
  RopeLayout layout = RopeLayout::kHalves;
  double theta = 10000.0;
  uint32_t rotary_dim = 0;  // even, <= head_dim
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // kLlama3
  double high_freq_factor = 4.0;  // kLlama3
  uint32_t original_context = 0;  // kLlama3
  // GGUF's rope_freqs.weight: divides each frequency; empty = none. rotary_dim / 2 values.
  std::vector<float> frequency_divisors;
};

struct LayerSpec {
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t ffn_dim = 0;         // of one expert, where there are experts
  uint32_t experts = 0;         // 0 = one dense feed-forward part
  uint32_t experts_active = 0;  // that a token goes to
  bool output_gate = false;     // attention's result is multiplied by a gate of its own
  double norm_eps = 1e-5;
  uint32_t window_tokens = 0;  // sliding window; 0 = full attention
  bool attention_bias = false;
  bool mlp_bias = false;
  RopeSpec rope;
};

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // from the checkpoint, for people; may be empty
  uint32_t vocab_size = 0;
  uint32_t hidden_dim = 0;
  uint32_t context_tokens = 0;
  double final_norm_eps = 1e-5;
  bool tied_embeddings = false;  // the head is the embedding table
  std::vector<LayerSpec> layers;
  std::vector<TokenId> end_tokens;  // from generation_config.json, config.json or GGUF metadata
};

}  // namespace muselet
