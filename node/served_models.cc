#include "node/served_models.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "node/text/text_model.h"

namespace muselet {

namespace {

Status CheckContext(uint32_t asked, const Checkpoint& checkpoint, const ModelEntry& model) {
  const uint32_t most = checkpoint.config().context_tokens;
  if (asked <= most) return OkStatus();
  return InvalidArgument("engine.context_tokens: " + std::to_string(asked) + " is more than the " +
                         std::to_string(most) + " tokens of model " + model.id + " (" + model.path +
                         "): set it to " + std::to_string(most) +
                         " or less, or to 0 for what each checkpoint has");
}

}  // namespace

Result<ServedModels> ServedModels::Open(const std::vector<ModelEntry>& models,
                                        const std::vector<std::string>& wanted,
                                        const EngineOptions& engine, bool with_text) {
  ServedModels served;
  for (const ModelEntry& model : models) {
    if (std::find(wanted.begin(), wanted.end(), model.id) == wanted.end()) continue;
    ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(model.path));
    RETURN_IF_ERROR(CheckContext(engine.context_tokens, *checkpoint, model));
    Entry entry{std::move(checkpoint), nullptr};
    if (with_text) {
      ASSIGN_OR_RETURN(entry.text, LoadTextModel(*entry.checkpoint));
      if (entry.text->tokenizer == nullptr) {
        LogWarn("the checkpoint has no tokenizer: only token-id prompts are served",
                {{"model", model.id}});
      }
    }
    served.entries_.emplace(model.id, std::move(entry));
  }
  return served;
}

std::shared_ptr<const Checkpoint> ServedModels::checkpoint(const std::string& id) const {
  const auto found = entries_.find(id);
  CHECK(found != entries_.end(), "model ", id, " was not opened");
  return found->second.checkpoint;
}

std::vector<GatewayModel> ServedModels::ForGateway(const EngineOptions& engine) const {
  std::vector<GatewayModel> models;
  for (const auto& [id, entry] : entries_) {
    const ModelConfig& config = entry.checkpoint->config();
    const uint32_t context =
        engine.context_tokens == 0 ? config.context_tokens : engine.context_tokens;
    const bool has_tokenizer = entry.text != nullptr && entry.text->tokenizer != nullptr;
    models.push_back(
        {id, has_tokenizer ? entry.text : nullptr, context, config.vocab_size, config.end_tokens});
  }
  return models;
}

}  // namespace muselet
