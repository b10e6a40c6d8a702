#include "node/gateway/openai_error.h"

#include <algorithm>

namespace muselet {
namespace {

constexpr int64_t kSecondUs = 1'000'000;

struct HttpMeaning {
  int http_status;
  const char* code;
};

HttpMeaning MeaningOf(StatusCode code) {
  switch (code) {
    case StatusCode::kInvalidArgument:
      return {400, ""};
    case StatusCode::kNotFound:
      return {404, "not_found"};
    case StatusCode::kPermissionDenied:
      return {403, "permission_denied"};
    case StatusCode::kResourceExhausted:
      return {429, "rate_limit_exceeded"};
    case StatusCode::kUnavailable:
      return {503, "service_unavailable"};
    case StatusCode::kDeadlineExceeded:
      return {504, "deadline_exceeded"};
    case StatusCode::kCancelled:
      return {503, "cancelled"};
    default:
      return {500, "internal_error"};
  }
}

}  // namespace

ApiError FieldError(std::string param, std::string message) {
  ApiError error;
  error.message = std::move(message);
  error.param = std::move(param);
  return error;
}

ApiError ErrorOf(const Status& status, std::string param, int64_t retry_after_us) {
  const HttpMeaning meaning = MeaningOf(status.code());
  ApiError error;
  error.http_status = meaning.http_status;
  error.message = status.message();
  error.param = std::move(param);
  error.code = meaning.code;
  if (error.http_status == 404 && error.param == "model") error.code = "model_not_found";
  error.retry_after_us = retry_after_us;
  return error;
}

ApiError ErrorOf(const GenerationError& error) {
  ApiError out = ErrorOf(error.status, error.param, error.retry_after_us);
  if (error.code.empty()) return out;
  out.code = error.code;
  if (out.http_status == 400) out.http_status = 422;
  return out;
}

HttpResponse ResponseOf(const ApiError& error) {
  HttpResponse response = HttpError(error.http_status, error.message, error.param, error.code);
  if (error.http_status == 429 || error.http_status == 503) {
    const int64_t seconds = (error.retry_after_us + kSecondUs - 1) / kSecondUs;
    response.headers.emplace_back("Retry-After", std::to_string(std::max<int64_t>(seconds, 1)));
  }
  // A request that ran out of its own time would run out of it again, and one that makes replicas
  // fail would do that again.
  const bool hopeless = error.http_status == 504 || error.code == "poisoned_request";
  if (hopeless) response.headers.emplace_back("X-Should-Retry", "false");
  return response;
}

std::string BodyOf(const ApiError& error) {
  return HttpErrorBody(error.http_status, error.message, error.param, error.code);
}

}  // namespace muselet
