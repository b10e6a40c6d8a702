// Every architecture with the fixtures that show it: what the tests of logits, of exactness and of
// sharding go over, and what the README's table lists.
#pragma once

#include <string>
#include <vector>

namespace muselet::testing {

struct ArchitectureCase {
  const char* models;              // for people
  const char* hugging_face_class;  // of config.json
  const char* folder;              // of ../shared/data/models
  const char* gguf_file;           // of tests/golden/gguf; "" if GGUF does not know it
};

inline constexpr ArchitectureCase kArchitectureCases[] = {
    {"Llama 2, Llama 3", "LlamaForCausalLM", "llama-tied-gqa", "llama-tied-gqa.F16"},
    {"Mistral", "MistralForCausalLM", "mistral-swa", "mistral-swa.F32"},
    {"Mixtral", "MixtralForCausalLM", "mixtral-moe", "mixtral-moe.F32"},
    {"Qwen2, Qwen2.5", "Qwen2ForCausalLM", "qwen2-bias", "qwen2-bias.BF16"},
    {"Qwen3", "Qwen3ForCausalLM", "qwen3-qknorm", "qwen3-qknorm.F32"},
    {"Qwen3-MoE", "Qwen3MoeForCausalLM", "qwen3-moe", "qwen3-moe.BF16"},
    {"Phi-3", "Phi3ForCausalLM", "phi3-fused", "phi3-fused.F32"},
    {"Gemma 3, text", "Gemma3ForCausalLM", "gemma3-text", "gemma3-text.F32"},
    {"Muse Glimmer, text", "MuseGlimmerForConditionalGeneration", "muse-glimmer-text", ""},
};

inline std::vector<std::string> ArchitectureFolders() {
  std::vector<std::string> folders;
  for (const ArchitectureCase& one : kArchitectureCases) folders.push_back(one.folder);
  return folders;
}

inline std::vector<std::string> ArchitectureGgufFiles() {
  std::vector<std::string> files;
  for (const ArchitectureCase& one : kArchitectureCases)
    if (one.gguf_file[0] != '\0') files.push_back(one.gguf_file);
  return files;
}

}  // namespace muselet::testing
