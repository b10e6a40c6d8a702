#include "node/model/architectures/architecture.h"

#include <array>

#include "node/model/architectures/llama.h"

namespace muselet {
namespace {

constexpr std::array<const Architecture*, 1> kArchitectures = {&kLlama};

std::string Joined(std::string_view Architecture::*field) {
  std::string text;
  for (const Architecture* architecture : kArchitectures) {
    if (!text.empty()) text += ", ";
    text += architecture->*field;
  }
  return text;
}

const Architecture* FindBy(std::string_view Architecture::*field, std::string_view value) {
  for (const Architecture* architecture : kArchitectures) {
    if (architecture->*field == value) return architecture;
  }
  return nullptr;
}

}  // namespace

const Architecture* FindHuggingFaceArchitecture(std::string_view class_name) {
  return FindBy(&Architecture::hugging_face_class, class_name);
}

const Architecture* FindGgufArchitecture(std::string_view name) {
  return FindBy(&Architecture::name, name);
}

std::string SupportedHuggingFaceArchitectures() {
  return Joined(&Architecture::hugging_face_class);
}

std::string SupportedGgufArchitectures() {
  return Joined(&Architecture::name);
}

}  // namespace muselet
