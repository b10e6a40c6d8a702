#include "node/model/hf_checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "node/model/architectures/architecture.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"
#include "node/model/safetensors.h"
#include "node/model/tensor_table.h"
#include "node/model/weight_digest.h"

namespace muselet {
namespace {

constexpr size_t kConfigBytesMax = 4 << 20;
constexpr size_t kTokenizerBytesMax = 256 << 20;
constexpr size_t kTemplateBytesMax = 1 << 20;

// What stands beside the weights.
struct SideFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  std::string chat_template;
  std::string chat_template_place;
  std::string config_json;  // for the digest
};

class HuggingFaceCheckpoint : public Checkpoint {
 public:
  HuggingFaceCheckpoint(const std::string& directory, Safetensors weights, ModelConfig config,
                        TensorTable tensors, SideFiles side, std::vector<std::string> notices)
      : weights_(std::move(weights)), tensors_(std::move(tensors)), side_(std::move(side)) {
    path_ = directory;
    config_ = std::move(config);
    notices_ = std::move(notices);
    chat_template_place_ = side_.chat_template_place;
  }

  Result<TensorView> Tensor(std::string_view canonical_name) const override {
    return tensors_.Find(canonical_name);
  }
  std::vector<std::string> TensorNames() const override { return tensors_.Names(); }
  void Release(const TensorView& tensor) const override {
    for (const MappedFile& file : weights_.files()) {
      const auto bytes = file.bytes();
      if (tensor.data >= bytes.data() && tensor.data < bytes.data() + bytes.size()) {
        file.Release({tensor.data, tensor.bytes()});
      }
    }
  }
  std::string Digest() const override {
    WeightDigest digest;
    digest.Add(side_.config_json);
    for (uint32_t i = 0; i < weights_.files().size(); ++i) digest.Add(weights_.header(i));
    for (const SafetensorsTensor& tensor : weights_.tensors()) {
      digest.AddTensor(tensor.name, tensor.view);
    }
    return digest.Hex();
  }
  const GgufFile* gguf() const override { return nullptr; }
  const std::string& tokenizer_json() const override { return side_.tokenizer_json; }
  const std::string& tokenizer_config_json() const override { return side_.tokenizer_config_json; }
  const std::string& chat_template() const override { return side_.chat_template; }

 private:
  Safetensors weights_;
  TensorTable tensors_;
  SideFiles side_;
};

// "" if there is none; a file that is there must be readable and hold something.
Result<std::string> ReadIfPresent(const std::string& path, size_t size_max_bytes) {
  if (!IsPresent(path)) return std::string();
  ASSIGN_OR_RETURN(std::string text, ReadFile(path, size_max_bytes));
  if (text.empty()) return InvalidArgument(path + ": the file is empty; download it again");
  return text;
}

Result<const Architecture*> ReadArchitecture(const JsonFields& config) {
  const Json* classes = FindMember(config.json(), "architectures");
  if (classes == nullptr) return config.Fault("architectures", "missing");
  if (!classes->is_array() || classes->size() != 1 || !classes->front().is_string()) {
    return config.Fault("architectures", "expected an array with one class name");
  }
  const auto& name = classes->front().get_ref<const std::string&>();
  const Architecture* architecture = FindHuggingFaceArchitecture(name);
  if (architecture != nullptr) return architecture;
  return config.Fault("architectures", "\"" + Printable(name) + "\" is not supported (supported: " +
                                           SupportedHuggingFaceArchitectures() + ")");
}

Status AddEndToken(const JsonFields& config, const Json& id, ModelConfig& model) {
  if (!id.is_number_integer() || id < 0 || id >= model.vocab_size) {
    return config.Fault("eos_token_id", "expected ids from 0 to " +
                                            std::to_string(model.vocab_size - 1) + ", got " +
                                            Printable(WriteJson(id)));
  }
  const auto token = id.get<TokenId>();
  auto& tokens = model.end_tokens;
  if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) tokens.push_back(token);
  return OkStatus();
}

// eos_token_id: an id, a list of ids, or absent.
Status ReadEndTokens(const JsonFields& config, ModelConfig& model) {
  const Json* ids = FindMember(config.json(), "eos_token_id");
  if (ids == nullptr) return OkStatus();
  if (!ids->is_array()) return AddEndToken(config, *ids, model);
  for (const Json& id : *ids) RETURN_IF_ERROR(AddEndToken(config, id, model));
  return OkStatus();
}

// `chat_template` of tokenizer_config.json: a text, or a list of {name, template}, of which the one
// named "default" counts, or the only one.
Result<std::string> TemplateOf(const JsonFields& config) {
  constexpr std::string_view kField = "chat_template";
  const Json* value = FindMember(config.json(), kField);
  if (value == nullptr) return std::string();
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) return config.Fault(kField, "expected a string or a list");
  std::string chosen;
  for (const Json& entry : *value) {
    const Json* name = FindMember(entry, "name");
    const Json* source = FindMember(entry, "template");
    if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
      return config.Fault(kField, "an entry needs the strings name and template");
    }
    if (*name == "default" || value->size() == 1) chosen = source->get<std::string>();
  }
  return chosen;
}

Result<SideFiles> ReadSideFiles(const std::string& directory) {
  SideFiles side;
  ASSIGN_OR_RETURN(side.config_json, ReadFile(directory + "/config.json", kConfigBytesMax));
  ASSIGN_OR_RETURN(side.tokenizer_json,
                   ReadIfPresent(directory + "/tokenizer.json", kTokenizerBytesMax));
  ASSIGN_OR_RETURN(side.chat_template,
                   ReadIfPresent(directory + "/chat_template.jinja", kTemplateBytesMax));
  side.chat_template_place = directory + "/chat_template.jinja";
  const std::string tokenizer_config = directory + "/tokenizer_config.json";
  ASSIGN_OR_RETURN(side.tokenizer_config_json, ReadIfPresent(tokenizer_config, kConfigBytesMax));
  if (side.tokenizer_config_json.empty()) return side;
  ASSIGN_OR_RETURN(const JsonFields config, JsonFields::ReadFile(tokenizer_config));
  ASSIGN_OR_RETURN(std::string in_config, TemplateOf(config));
  if (!side.chat_template.empty()) return side;
  side.chat_template = std::move(in_config);
  side.chat_template_place = tokenizer_config + ": chat_template";
  return side;
}

Result<ModelConfig> ReadConfig(const std::string& directory, const JsonFields& config,
                               const Architecture& architecture) {
  if (FindMember(config.json(), "quantization_config") != nullptr) {
    return config.Fault(
        "quantization_config",
        "quantised safetensors are not supported; use the original weights or GGUF");
  }
  std::optional<JsonFields> text;
  if (!architecture.text_config.empty()) {
    ASSIGN_OR_RETURN(text, config.FindObject(architecture.text_config));
    if (!text) return config.Fault(architecture.text_config, "missing");
  }
  ASSIGN_OR_RETURN(ModelConfig model, architecture.from_hugging_face(text ? *text : config));
  model.name = std::filesystem::path(directory).filename().string();
  const std::string generation = directory + "/generation_config.json";
  if (IsPresent(generation)) {
    ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::ReadFile(generation));
    RETURN_IF_ERROR(ReadEndTokens(fields, model));
  }
  RETURN_IF_ERROR(ReadEndTokens(config, model));
  if (text) RETURN_IF_ERROR(ReadEndTokens(*text, model));
  return model;
}

// The tensors of the text model. What is left out becomes a notice.
std::vector<FileTensor> TextTensors(const Safetensors& weights, const Architecture& architecture,
                                    std::vector<std::string>& notices) {
  std::vector<FileTensor> tensors;
  uint64_t skipped = 0, bytes = 0;
  for (const SafetensorsTensor& tensor : weights.tensors()) {
    const std::string_view prefix = architecture.skipped_prefix;
    if (!prefix.empty() && tensor.name.starts_with(prefix)) {
      ++skipped;
      bytes += tensor.view.bytes();
      continue;
    }
    tensors.push_back({tensor.name, tensor.view});
  }
  if (skipped > 0) {
    notices.push_back("the part that sees is skipped (" + std::to_string(skipped) + " tensors, " +
                      std::to_string(bytes) + " bytes): the model understands text alone");
  }
  return tensors;
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> OpenHuggingFaceCheckpoint(const std::string& directory) {
  const std::string config_path = directory + "/config.json";
  if (!IsPresent(config_path)) {
    return NotFound(directory +
                    ": has no config.json; give a .gguf file or a Hugging Face model directory");
  }
  ASSIGN_OR_RETURN(const JsonFields config, JsonFields::ReadFile(config_path));
  ASSIGN_OR_RETURN(const Architecture* architecture, ReadArchitecture(config));
  ASSIGN_OR_RETURN(ModelConfig model, ReadConfig(directory, config, *architecture));
  ASSIGN_OR_RETURN(SideFiles side, ReadSideFiles(directory));
  ASSIGN_OR_RETURN(Safetensors weights, Safetensors::OpenDirectory(directory));
  if (model.layers.size() > weights.tensors().size()) {
    return config.Fault("num_hidden_layers", "more layers than the weights have tensors");
  }
  std::vector<std::string> notices;
  std::vector<FileTensor> tensors = TextTensors(weights, *architecture, notices);
  ASSIGN_OR_RETURN(
      TensorTable table,
      TensorTable::Match(directory, architecture->tensors(model, TensorNaming::kHuggingFace),
                         std::move(tensors), architecture->ignores));
  return std::unique_ptr<Checkpoint>(std::make_unique<HuggingFaceCheckpoint>(
      directory, std::move(weights), std::move(model), std::move(table), std::move(side),
      std::move(notices)));
}

}  // namespace muselet
