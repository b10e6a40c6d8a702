// What an HTTP handler sees: a request, and an exchange that it answers now or later, whole or as a
// stream. Plain values and one handle; nothing here knows sockets or what the routes mean.
//
// Everything is on the loop thread of the server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace muselet {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// A complete request that passed the server's limits and framing rules.
struct HttpRequest {
  std::string method;     // as sent; methods are case-sensitive
  std::string path;       // percent-decoded, without the query
  std::string query;      // after '?', not decoded
  std::string parameter;  // what the '*' of the route matched
  HttpHeaders headers;    // names in lower case
  std::string body;
  std::string id;        // X-Request-Id of the client, or a new one; answered in the same header
  size_t principal = 0;  // who asks: set by the server's authorizer

  // The first header of this lower-case name, or "".
  std::string_view Header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers;  // beyond Date, Content-Type, Content-Length, Connection and X-Request-Id
  std::string body;
};

// The head of an answer whose length is not known yet.
struct HttpStreamHead {
  std::string content_type = "text/event-stream; charset=utf-8";
  HttpHeaders headers;
  std::string keep_alive;  // sent after each keep_alive_interval_us of silence; empty = nothing
};

class HttpConnection;

// One request's answer. Exactly one of Respond and BeginStream ... End; whatever comes after the
// client went away is ignored. An exchange that is dropped unanswered is answered with 500.
class HttpExchange {
 public:
  HttpExchange(std::weak_ptr<HttpConnection> connection, uint64_t serial);
  ~HttpExchange();
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;

  void Respond(HttpResponse response);

  // The head leaves with the first Write or the first keep-alive, so until then (head_sent() is
  // false) Respond may still answer with another status.
  void BeginStream(HttpStreamHead head);
  bool head_sent() const;
  // Queues bytes; they leave at the end of this turn of the loop. More unsent bytes than
  // HttpLimits::stream_buffer_bytes end the connection: a slow reader costs its own stream only.
  void Write(std::string_view bytes);
  void End();

  // `callback` runs once, from the loop (never from within a call of this class), if the client
  // goes away or reads too slowly before the answer is complete.
  void OnAbandoned(std::function<void()> callback);

 private:
  std::weak_ptr<HttpConnection> connection_;
  uint64_t serial_;
  bool answered_ = false;
};
using HttpExchangePtr = std::shared_ptr<HttpExchange>;

// "Sun, 06 Nov 1994 08:49:37 GMT": a Date header's value (RFC 9110, section 5.6.7).
std::string HttpDate(int64_t unix_s);

// "OK", "Not Found", ...; "Unknown" for a status without a name.
std::string_view HttpReason(int status);

// The status line and headers of an answer, without the closing empty line.
std::string HttpHead(int status, std::string_view content_type, const HttpHeaders& headers,
                     std::string_view request_id);

// {"error":{"message","type","param","code"}}, the error object that OpenAI's clients read. An
// empty param or code is null; an empty type is chosen by the status.
std::string HttpErrorBody(int status, std::string_view message, std::string_view param = {},
                          std::string_view code = {}, std::string_view type = {});
HttpResponse HttpError(int status, std::string_view message, std::string_view param = {},
                       std::string_view code = {});

}  // namespace muselet
