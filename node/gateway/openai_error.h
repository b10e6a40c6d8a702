// A fault of one API request, as OpenAI's clients read it.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "node/gateway/generation.h"
#include "node/gateway/http_message.h"

namespace muselet {

struct ApiError {
  int http_status = 400;
  std::string message;
  std::string param;  // the field at fault; may be empty
  std::string code;   // a word for programs; may be empty
  int64_t retry_after_us = 0;
};

// The error of a field: 400, naming it.
ApiError FieldError(std::string param, std::string message);
// By what the caller should do: 400, 404, 403, 429, 503, 504, 500; 422 where the request is well
// formed and contradicts another one.
ApiError ErrorOf(const Status& status, std::string param = {}, int64_t retry_after_us = 0);
ApiError ErrorOf(const GenerationError& error);

// With Retry-After (whole seconds, at least one) for 429 and 503.
HttpResponse ResponseOf(const ApiError& error);
// {"error":{...}}
std::string BodyOf(const ApiError& error);

}  // namespace muselet
