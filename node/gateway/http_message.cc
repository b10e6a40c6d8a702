#include "node/gateway/http_message.h"

#include <array>
#include <ctime>

#include "base/json.h"

namespace muselet {
namespace {

std::string_view ErrorType(int status) {
  if (status == 429) return "rate_limit_error";
  if (status == 408 || status == 504) return "timeout_error";
  if (status >= 500) return "server_error";
  return "invalid_request_error";
}

void AppendNullable(std::string_view text, std::string& out) {
  if (text.empty()) {
    out += "null";
  } else {
    AppendJsonString(text, out);
  }
}

}  // namespace

std::string_view HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

std::string HttpDate(int64_t unix_s) {
  constexpr std::array<const char*, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t seconds = unix_s;
  std::tm utc = {};
  if (gmtime_r(&seconds, &utc) == nullptr) return {};
  const auto two = [](int number) { return (number < 10 ? "0" : "") + std::to_string(number); };
  return std::string(kDays[static_cast<size_t>(utc.tm_wday)]) + ", " + two(utc.tm_mday) + " " +
         kMonths[static_cast<size_t>(utc.tm_mon)] + " " + std::to_string(utc.tm_year + 1900) + " " +
         two(utc.tm_hour) + ":" + two(utc.tm_min) + ":" + two(utc.tm_sec) + " GMT";
}

std::string_view HttpReason(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 422:
      return "Unprocessable Content";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

std::string HttpHead(int status, std::string_view content_type, const HttpHeaders& headers,
                     std::string_view request_id) {
  std::string head = "HTTP/1.1 " + std::to_string(status) + " ";
  head += HttpReason(status);
  head += "\r\n";
  if (!content_type.empty()) head.append("Content-Type: ").append(content_type).append("\r\n");
  for (const auto& [name, value] : headers)
    head.append(name).append(": ").append(value).append("\r\n");
  if (!request_id.empty()) head.append("X-Request-Id: ").append(request_id).append("\r\n");
  return head;
}

std::string HttpErrorBody(int status, std::string_view message, std::string_view param,
                          std::string_view code, std::string_view type) {
  std::string body = R"({"error":{"message":)";
  AppendJsonString(message, body);
  body += R"(,"type":)";
  AppendJsonString(type.empty() ? ErrorType(status) : type, body);
  body += R"(,"param":)";
  AppendNullable(param, body);
  body += R"(,"code":)";
  AppendNullable(code, body);
  body += "}}";
  return body;
}

HttpResponse HttpError(int status, std::string_view message, std::string_view param,
                       std::string_view code) {
  HttpResponse response;
  response.status = status;
  response.body = HttpErrorBody(status, message, param, code);
  return response;
}

}  // namespace muselet
