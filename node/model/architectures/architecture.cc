#include "node/model/architectures/architecture.h"

#include <array>

#include "node/model/architectures/gemma3.h"
#include "node/model/architectures/llama.h"
#include "node/model/architectures/muse_glimmer.h"
#include "node/model/architectures/phi3.h"
#include "node/model/architectures/qwen.h"

namespace muselet {
namespace {

constexpr std::array<const Architecture*, 9> kArchitectures = {
    &kLlama, &kMistral, &kMixtral, &kQwen2, &kQwen3, &kQwen3Moe, &kPhi3, &kGemma3, &kMuseGlimmer};

std::string Joined(std::string_view Architecture::*field) {
  std::string text;
  for (const Architecture* architecture : kArchitectures) {
    if ((architecture->*field).empty()) continue;
    if (!text.empty()) text += ", ";
    text += architecture->*field;
  }
  return text;
}

const Architecture* FindBy(std::string_view Architecture::*field, std::string_view value) {
  for (const Architecture* architecture : kArchitectures) {
    if (architecture->*field == value && !value.empty()) return architecture;
  }
  return nullptr;
}

}  // namespace

const Architecture* FindHuggingFaceArchitecture(std::string_view class_name) {
  return FindBy(&Architecture::hugging_face_class, class_name);
}

const Architecture* FindGgufArchitecture(std::string_view name) {
  return FindBy(&Architecture::gguf_name, name);
}

std::string SupportedHuggingFaceArchitectures() {
  return Joined(&Architecture::hugging_face_class);
}

std::string SupportedGgufArchitectures() {
  return Joined(&Architecture::gguf_name);
}

}  // namespace muselet
