// A model on disk: one GGUF file, or a Hugging Face directory (config.json, *.safetensors,
// tokenizer.json, ...). Opening maps the files, checks every header field against the bytes that
// are there, and gives tensors by canonical name; it allocates nothing in proportion to what a
// header claims. No code is ever loaded from a model directory.
//
// Owns the mappings: TensorViews live as long as the Checkpoint. Immutable after Open; any thread
// may read.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/device/tensor.h"
#include "base/status.h"
#include "node/model/model_config.h"

namespace muselet {

class GgufFile;

// Canonical tensor names, the same for all formats ("N" = layer number from 0):
//   embedding [V, C], output_norm [C], output [V, C] (absent if tied), and per layer "layers.N." +
//   attention_norm [C], q [H*D, C], k [K*D, C], v [K*D, C], o [C, H*D], ffn_norm [C], gate [F, C],
//   up [F, C], down [C, F]; with biases: q_bias [H*D], k_bias, v_bias, o_bias, gate_bias, up_bias,
//   down_bias; where LayerSpec asks for them: output_gate [H*D, C], q_norm [D], k_norm [D],
//   post_attention_norm [C], post_ffn_norm [C]; with experts, instead of gate, up and down:
//   router [E, C] and, for expert e, experts.e.gate, experts.e.up, experts.e.down.
class Checkpoint {
 public:
  // `path` is a .gguf file or a directory. Faults name the file and the field: kNotFound, kDataLoss
  // (truncated or lying), kInvalidArgument (unsupported architecture, dtype or value).
  static Result<std::unique_ptr<Checkpoint>> Open(const std::string& path);
  virtual ~Checkpoint() = default;

  const std::string& path() const { return path_; }  // as given to Open
  const ModelConfig& config() const { return config_; }
  // What of the checkpoint is left out, in words for people; usually nothing.
  const std::vector<std::string>& notices() const { return notices_; }
  // kNotFound naming the tensor in the checkpoint's own terms.
  virtual Result<TensorView> Tensor(std::string_view canonical_name) const = 0;
  virtual std::vector<std::string> TensorNames() const = 0;  // canonical, in file order
  // Tells the system that a tensor's file pages are no longer needed (it was repacked).
  virtual void Release(const TensorView& tensor) const = 0;
  // Hex digest that names the weights and config: equal bytes, equal digest. Cheap: hashes headers,
  // sizes and samples of each tensor, not every byte.
  virtual std::string Digest() const = 0;

  // What node/text needs. Exactly one of the two is there for a checkpoint with a tokenizer.
  virtual const GgufFile* gguf() const = 0;                      // null for a directory
  virtual const std::string& tokenizer_json() const = 0;         // "" if there is none
  virtual const std::string& tokenizer_config_json() const = 0;  // "" if there is none
  virtual const std::string& chat_template() const = 0;  // Jinja source; "" if there is none
  // Where the template stands, for faults: "/m/tokenizer_config.json: chat_template".
  const std::string& chat_template_place() const { return chat_template_place_; }

 protected:
  std::string path_;
  ModelConfig config_;
  std::vector<std::string> notices_;
  std::string chat_template_place_;
};

}  // namespace muselet
