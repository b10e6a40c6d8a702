// A small HTTP/1.1 client on one event loop, over TCP or TLS: many requests at once for bench, one
// at a time for chat. A request takes a connection that an earlier one of the same Run has left
// open, or makes one, so there are as many as requests were ever in flight. Boost.Beast and OpenSSL
// stay behind this file.
//
// Not thread-safe: everything, the callbacks included, happens on the thread that calls Run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "node/cli/client_options.h"

namespace muselet {

struct HttpUrl {
  bool tls = false;
  std::string host;
  std::string port;
  std::string path;  // without a slash at its end; may be empty
};

// http://HOST[:PORT][/PATH], https:// the same, or HOST:PORT. kInvalidArgument for anything else.
Result<HttpUrl> ParseHttpUrl(std::string_view text);

struct HttpRequest {
  std::string method = "GET";
  std::string target;  // whole path
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;  // JSON if not empty
};

// on_head once, then on_body for every piece as it comes, then on_done once. on_done alone if no
// answer came. OK means that the whole answer arrived, whatever its status code.
//   kUnavailable connection refused or unreachable, or a certificate that is not to be believed ·
//   kDeadlineExceeded · kDataLoss cut off or not HTTP
struct HttpEvents {
  std::function<void(int status_code)> on_head;
  std::function<void(std::string_view bytes)> on_body;
  std::function<void(const Status& status)> on_done;
};

class HttpClient {
 public:
  // Resolves the host, which may block, and reads the authorities that `trust` names. kNotFound
  // names the host, kInvalidArgument the file. The peer of https:// must show a certificate of one
  // of them for the host of `url`, unless `trust` is insecure.
  static Result<std::unique_ptr<HttpClient>> Open(const HttpUrl& url, const TlsTrust& trust = {});
  virtual ~HttpClient() = default;

  // May be called from callbacks.
  virtual void Send(HttpRequest request, HttpEvents events, int64_t timeout_us) = 0;
  // Calls `callback` once, `delay_us` from now.
  virtual void After(int64_t delay_us, std::function<void()> callback) = 0;
  // Instead of ending the process, SIGINT calls `callback`, while Run runs.
  virtual void OnInterrupt(std::function<void()> callback) = 0;
  // Works until Finish is called.
  virtual void Run() = 0;
  // Makes Run return. Requests under way are dropped without on_done, timers and open connections
  // too.
  virtual void Finish() = 0;
};

// A whole answer, for small ones.
struct HttpAnswer {
  int status_code = 0;
  std::string body;
};
// Runs `client` for one request. kResourceExhausted if the body is larger than 16 MiB.
Result<HttpAnswer> Fetch(HttpClient& client, HttpRequest request, int64_t timeout_us);

}  // namespace muselet
