// What an architecture must say of itself: how its config becomes a ModelConfig, and which tensors
// that config asks for. A new one is a file like llama.cc and a line in architecture.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "node/model/gguf_fields.h"
#include "node/model/model_config.h"
#include "node/model/tensor_table.h"

namespace muselet {

class JsonFields;

struct Architecture {
  std::string_view name;                // ModelConfig::architecture
  std::string_view hugging_face_class;  // an entry of config.json's "architectures"
  std::string_view gguf_name;           // general.architecture; "" = GGUF does not know it
  // Fill all of ModelConfig but name and end_tokens. Faults name file and field.
  Result<ModelConfig> (*from_hugging_face)(const JsonFields& config);
  Result<ModelConfig> (*from_gguf)(const GgufFields& config);
  // Every tensor that must be there.
  std::vector<TensorSpec> (*tensors)(const ModelConfig& config, TensorNaming naming);
  // Tensors that some checkpoints have beside those, and that change nothing.
  bool (*ignores)(std::string_view name);
  // Of a model that also sees: its text part. The field of config.json that holds it, and the
  // prefix of the names of tensors that are skipped with a notice; "" for models of text alone.
  std::string_view text_config = "";
  std::string_view skipped_prefix = "";
};

// Null if it is not supported.
const Architecture* FindHuggingFaceArchitecture(std::string_view class_name);
const Architecture* FindGgufArchitecture(std::string_view name);
// "LlamaForCausalLM, ..." and "llama, ...", for messages.
std::string SupportedHuggingFaceArchitectures();
std::string SupportedGgufArchitectures();

}  // namespace muselet
