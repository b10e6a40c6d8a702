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

// What the gate of a feed-forward part goes through. kGeluTanh: the form with tanh.
enum class Activation : uint8_t { kSilu, kGeluTanh };

// RMSNorm of every head of the queries and keys, before their rotation. kPlain: without a weight.
enum class HeadNorm : uint8_t { kNone, kWeighted, kPlain };

struct LayerSpec {
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t ffn_dim = 0;              // of one expert, where there are experts
  uint32_t experts = 0;              // 0 = one dense feed-forward part
  uint32_t experts_active = 0;       // that a token goes to
  bool experts_renormalised = true;  // the weights of a token's experts sum to 1
  Activation activation = Activation::kSilu;
  bool output_gate = false;  // attention's result is multiplied by the sigmoid of a gate of its own
  double norm_eps = 1e-5;
  // The results of attention and feed-forward are normed too before they join the residual.
  bool post_norms = false;
  double post_norm_eps = 1e-5;
  bool centred_norms = false;  // the layer's norms multiply by 1 + weight
  HeadNorm head_norm = HeadNorm::kNone;
  double query_scale = 1.0;      // of normed queries
  double attention_scale = 0.0;  // of scores; 0 = 1 / sqrt(head_dim)
  uint32_t window_tokens = 0;    // sliding window; 0 = full attention
  bool attention_bias = false;   // of q, k and v
  bool output_bias = false;      // of o
  bool mlp_bias = false;
  RopeSpec rope;  // rotary_dim 0: positions are not encoded
};

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // from the checkpoint, for people; may be empty
  uint32_t vocab_size = 0;
  uint32_t hidden_dim = 0;
  uint32_t context_tokens = 0;
  double final_norm_eps = 1e-5;
  bool centred_final_norm = false;
  bool tied_embeddings = false;   // the head is the embedding table
  double embedding_scale = 1.0;   // embeddings are multiplied by it
  double embedding_norm_eps = 0;  // embeddings are normed, without a weight; 0 = they are not
  double logit_scale = 1.0;       // logits are multiplied by it
  double logit_soft_cap = 0;      // then cap * tanh(logit / cap); 0 = none
  std::vector<LayerSpec> layers;
  std::vector<TokenId> end_tokens;  // from generation_config.json, config.json or GGUF metadata
};

}  // namespace muselet
