// The models of a config as their checkpoints and their text sides, opened once and shared by the
// roles of a process.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "node/config/config.h"
#include "node/gateway/generation_service.h"
#include "node/model/checkpoint.h"

namespace muselet {

class ServedModels {
 public:
  // Opens those of `models` whose ids are in `wanted`. Faults name the file. `with_text` also loads
  // tokenizers and chat templates (gateways need them, nodes do not). kInvalidArgument if `engine`
  // asks for a longer context than a checkpoint has.
  static Result<ServedModels> Open(const std::vector<ModelEntry>& models,
                                   const std::vector<std::string>& wanted,
                                   const EngineOptions& engine, bool with_text);

  // REQUIRES: `id` was opened.
  std::shared_ptr<const Checkpoint> checkpoint(const std::string& id) const;
  // What a gateway has to know of each model; `engine` limits the context.
  std::vector<GatewayModel> ForGateway(const EngineOptions& engine) const;

 private:
  struct Entry {
    std::shared_ptr<const Checkpoint> checkpoint;
    std::shared_ptr<const TextModel> text;
  };
  std::map<std::string, Entry> entries_;
};

}  // namespace muselet
