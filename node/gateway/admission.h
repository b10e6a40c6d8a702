// What a gateway checks before a request may cost anything, and the record it makes of it. Pure
// functions; a fault names the request's field.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "node/gateway/cluster_secret.h"
#include "node/gateway/gateway_options.h"
#include "node/gateway/generation.h"
#include "node/gateway/request_owner.h"
#include "scheduler/route/surface_options.h"

namespace muselet {

// What the checks need to know of a model.
struct ModelLimits {
  std::string id;
  uint32_t context_tokens = 0;
  uint32_t vocab_size = 0;
  bool has_tokenizer = false;
  bool has_chat_template = false;
  std::vector<TokenId> end_tokens;
};

// Ranges, counts and ids of everything but the prompt's length.
std::optional<GenerationError> CheckRequest(const GenerationRequest& request,
                                            const ModelLimits& model, const RequestLimits& limits);

// The prompt's length against the context, and the tokens that were asked for against what is left
// of it; `param` is the request's field that holds the prompt.
std::optional<GenerationError> CheckLengths(const std::string& param, size_t prompt_tokens,
                                            const GenerationRequest& request,
                                            const ModelLimits& model);

// REQUIRES: both checks passed. `seed` counts if the client gave none. The record's prompt, salt
// and join id are left empty.
RequestRecord MakeRecord(const GenerationRequest& request, const RequestId& id,
                         size_t prompt_tokens, uint64_t seed, const ModelLimits& model,
                         const SurfaceOptions& surface, const RequestLimits& limits);

// The prefix-cache salt of a surface: the same in all gateways of a cluster, another one for every
// other cluster and salt of a surface. Nobody can guess it if the cluster has a secret; null: none.
uint64_t CacheSalt(const ClusterSecret* secret, const std::string& cluster,
                   const SurfaceOptions& surface);

// Gives the surface's limits of thought to chat templates, as thinking_budget.
void LimitThought(const SurfaceOptions& surface, GenerationRequest& request);

}  // namespace muselet
