// The front-end RPC's messages (comms/proto/frontend.proto) to and from the gateway's own values.
// Ranges are the service's affair (node/gateway/admission.h): here only shapes are checked.
#pragma once

#include <string>

#include "base/status.h"
#include "node/gateway/generation.h"

namespace muselet::v1 {
class GenerateChunk;
class GenerateRequest;
class Response;
}  // namespace muselet::v1

namespace muselet {

// The fault names the field; the request's surface and class are left as they are by default. An
// empty model is left empty.
struct RpcGenerate {
  GenerationRequest request;
  bool wants_logprobs = false;
};
Result<RpcGenerate> ReadGenerate(const v1::GenerateRequest& message, std::string& param);

void WriteUpdate(const ChoiceUpdate& update, const std::string& request_id, bool with_logprobs,
                 v1::GenerateChunk& chunk);
void WriteError(const GenerationError& error, v1::Response& response);

}  // namespace muselet
