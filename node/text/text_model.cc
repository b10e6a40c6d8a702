#include "node/text/text_model.h"

#include "base/json.h"
#include "node/model/gguf.h"
#include "node/text/utf8.h"

namespace muselet {
namespace {

// The text of a token in tokenizer_config.json: a string, or an object with "content".
std::string ConfigToken(const Json& config, std::string_view key) {
  const Json* value = FindMember(config, key);
  if (value != nullptr && value->is_object()) value = FindMember(*value, "content");
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

Result<std::string> GgufToken(const GgufFile& file, const Tokenizer& tokenizer,
                              std::string_view key) {
  if (!file.Has(key)) return std::string();
  ASSIGN_OR_RETURN(const int64_t id, file.Int(key));
  if (id < 0 || id >= tokenizer.vocab_size()) {
    return InvalidArgument(file.path() + ": " + std::string(key) + ": " + std::to_string(id) +
                           " is not in the vocabulary");
  }
  return std::string(tokenizer.TokenText(static_cast<TokenId>(id)));
}

Status LoadFromGguf(const GgufFile& file, TextModel& text) {
  if (!file.Has("tokenizer.ggml.model")) return OkStatus();
  ASSIGN_OR_RETURN(const std::string_view model, file.String("tokenizer.ggml.model"));
  if (model == "none" || model == "no_vocab") return OkStatus();
  ASSIGN_OR_RETURN(text.tokenizer, LoadGgufTokenizer(file));
  ASSIGN_OR_RETURN(text.bos_token, GgufToken(file, *text.tokenizer, "tokenizer.ggml.bos_token_id"));
  ASSIGN_OR_RETURN(text.eos_token, GgufToken(file, *text.tokenizer, "tokenizer.ggml.eos_token_id"));
  return OkStatus();
}

Status LoadFromDirectory(const Checkpoint& checkpoint, TextModel& text) {
  if (checkpoint.tokenizer_json().empty()) return OkStatus();
  const std::string& config_json = checkpoint.tokenizer_config_json();
  ASSIGN_OR_RETURN(text.tokenizer, LoadHuggingFaceTokenizer(checkpoint.tokenizer_json(),
                                                            config_json, checkpoint.path()));
  if (text.tokenizer->bos()) {
    text.bos_token = std::string(text.tokenizer->TokenText(*text.tokenizer->bos()));
  }
  if (config_json.empty()) return OkStatus();
  auto config = ParseJson(config_json);
  if (!config.ok()) {
    return config.status().WithContext(checkpoint.path() + "/tokenizer_config.json");
  }
  if (const std::string bos = ConfigToken(*config, "bos_token"); !bos.empty()) {
    text.bos_token = bos;
  }
  text.eos_token = ConfigToken(*config, "eos_token");
  return OkStatus();
}

// A token without a row in the embedding could be typed, but not computed.
Status CheckVocabulary(const Checkpoint& checkpoint, const Tokenizer& tokenizer) {
  const uint32_t rows = checkpoint.config().vocab_size;
  if (tokenizer.vocab_size() <= rows) return OkStatus();
  const auto last = static_cast<TokenId>(tokenizer.vocab_size() - 1);
  const bool gguf = checkpoint.gguf() != nullptr;
  return InvalidArgument(
      checkpoint.path() + (gguf ? ": tokenizer.ggml.tokens: " : "/tokenizer.json: model.vocab: ") +
      "token " + Quoted(tokenizer.TokenText(last)) + " has id " + std::to_string(last) +
      ", but the model's vocab_size is " + std::to_string(rows) +
      "; take the tokenizer that belongs to these weights");
}

}  // namespace

Result<std::shared_ptr<const TextModel>> LoadTextModel(const Checkpoint& checkpoint) {
  auto text = std::make_shared<TextModel>();
  if (checkpoint.gguf() != nullptr) {
    RETURN_IF_ERROR(LoadFromGguf(*checkpoint.gguf(), *text));
  } else {
    RETURN_IF_ERROR(LoadFromDirectory(checkpoint, *text));
  }
  if (text->tokenizer != nullptr) {
    RETURN_IF_ERROR(CheckVocabulary(checkpoint, *text->tokenizer));
  }
  if (text->tokenizer != nullptr && !checkpoint.chat_template().empty()) {
    auto parsed = ChatTemplate::Parse(checkpoint.chat_template());
    if (!parsed.ok()) return parsed.status().WithContext(checkpoint.chat_template_place());
    text->chat_template = std::move(*parsed);
  }
  return std::shared_ptr<const TextModel>(std::move(text));
}

}  // namespace muselet
