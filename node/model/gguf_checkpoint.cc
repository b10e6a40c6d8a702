#include "node/model/gguf_checkpoint.h"

#include <algorithm>
#include <utility>

#include "node/model/architectures/architecture.h"
#include "node/model/file_fault.h"
#include "node/model/gguf.h"
#include "node/model/tensor_table.h"
#include "node/model/weight_digest.h"

namespace muselet {
namespace {

class GgufCheckpoint : public Checkpoint {
 public:
  GgufCheckpoint(GgufFile file, ModelConfig config, TensorTable tensors, std::string chat_template)
      : file_(std::move(file)),
        tensors_(std::move(tensors)),
        chat_template_(std::move(chat_template)) {
    path_ = file_.path();
    config_ = std::move(config);
    chat_template_place_ = path_ + ": tokenizer.chat_template";
  }

  Result<TensorView> Tensor(std::string_view canonical_name) const override {
    return tensors_.Find(canonical_name);
  }
  std::vector<std::string> TensorNames() const override { return tensors_.Names(); }
  void Release(const TensorView& tensor) const override {
    file_.file().Release({tensor.data, tensor.bytes()});
  }
  std::string Digest() const override {
    WeightDigest digest;
    digest.Add(file_.header());
    for (const GgufTensor& tensor : file_.tensors()) digest.AddTensor(tensor.name, tensor.view);
    return digest.Hex();
  }
  const GgufFile* gguf() const override { return &file_; }
  const std::string& tokenizer_json() const override { return kNone; }
  const std::string& tokenizer_config_json() const override { return kNone; }
  const std::string& chat_template() const override { return chat_template_; }

 private:
  inline static const std::string kNone;

  GgufFile file_;
  TensorTable tensors_;
  std::string chat_template_;
};

// The ids that end an answer: end of sequence, of turn, of message.
Status ReadEndTokens(const GgufFile& file, ModelConfig& config) {
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    if (!file.Has(key)) continue;
    ASSIGN_OR_RETURN(const uint64_t id, file.Uint(key));
    if (id >= config.vocab_size) {
      return BadField(file.path(), key,
                      std::to_string(id) + " is not below the vocabulary size " +
                          std::to_string(config.vocab_size));
    }
    const auto token = static_cast<TokenId>(id);
    auto& tokens = config.end_tokens;
    if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) tokens.push_back(token);
  }
  return OkStatus();
}

Status CheckVocabulary(const GgufFile& file, const ModelConfig& config) {
  constexpr std::string_view kKey = "tokenizer.ggml.tokens";
  const GgufEntry* pieces = file.Find(kKey);
  if (pieces == nullptr || pieces->count <= config.vocab_size) return OkStatus();
  return LyingFile(file.path(), kKey,
                   std::to_string(pieces->count) + " pieces, the model has " +
                       std::to_string(config.vocab_size) + " tokens");
}

Result<ModelConfig> ReadConfig(const GgufFile& file, const Architecture& architecture) {
  ASSIGN_OR_RETURN(ModelConfig config,
                   architecture.from_gguf(GgufFields(file, architecture.gguf_name)));
  ASSIGN_OR_RETURN(config.name, file.StringOr("general.name", ""));
  RETURN_IF_ERROR(CheckVocabulary(file, config));
  RETURN_IF_ERROR(ReadEndTokens(file, config));
  return config;
}

Result<const Architecture*> ReadArchitecture(const GgufFile& file) {
  constexpr std::string_view kKey = "general.architecture";
  ASSIGN_OR_RETURN(const std::string_view name, file.String(kKey));
  const Architecture* architecture = FindGgufArchitecture(name);
  if (architecture != nullptr) return architecture;
  return BadField(file.path(), kKey,
                  "\"" + Printable(name) +
                      "\" is not supported (supported: " + SupportedGgufArchitectures() + ")");
}

// A model in several files names its parts in metadata; the parts alone are useless.
Status RefuseSplit(const GgufFile& file) {
  ASSIGN_OR_RETURN(const uint64_t parts, file.UintOr("split.count", 0));
  if (parts <= 1) return OkStatus();
  return BadField(
      file.path(), "split.count",
      "one of " + std::to_string(parts) + " parts; join them with llama-gguf-split --merge first");
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> OpenGgufCheckpoint(const std::string& path) {
  ASSIGN_OR_RETURN(GgufFile file, GgufFile::Open(path));
  RETURN_IF_ERROR(RefuseSplit(file));
  ASSIGN_OR_RETURN(const Architecture* architecture, ReadArchitecture(file));
  ASSIGN_OR_RETURN(ModelConfig config, ReadConfig(file, *architecture));
  std::vector<FileTensor> tensors;
  for (const GgufTensor& tensor : file.tensors()) tensors.push_back({tensor.name, tensor.view});
  ASSIGN_OR_RETURN(TensorTable table,
                   TensorTable::Match(path, architecture->tensors(config, TensorNaming::kGguf),
                                      std::move(tensors), architecture->ignores));
  ASSIGN_OR_RETURN(const std::string_view chat, file.StringOr("tokenizer.chat_template", ""));
  return std::unique_ptr<Checkpoint>(std::make_unique<GgufCheckpoint>(
      std::move(file), std::move(config), std::move(table), std::string(chat)));
}

}  // namespace muselet
