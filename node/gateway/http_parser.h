// One HTTP/1.1 request from bytes, strictly: what two servers could read in two ways is a fault
// (both Content-Length and Transfer-Encoding, repeated or missing Host, folded lines, bare LF, NUL,
// other codings than chunked). Wraps Boost.Beast's parser; no socket, no clock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "node/gateway/http_message.h"

namespace muselet {

class HttpParser {
 public:
  struct Limits {
    uint32_t header_bytes_max = 16 * 1024;
    uint32_t body_bytes_max = 4 * 1024 * 1024;
  };
  enum class State { kHeader, kBody, kDone, kFault };

  explicit HttpParser(const Limits& limits);
  ~HttpParser();

  // Takes bytes from the front of `input` and says how many; the caller keeps the rest and comes
  // back with more after it. Stops once at the end of the header, so that the caller can refuse
  // before the body, and at the end of the request: what follows belongs to the next one.
  size_t Feed(std::string_view input);
  State state() const { return state_; }

  // Valid from kBody on; the body is complete at kDone. At kFault only `id` counts; it is empty
  // if the client sent none or it was not read.
  HttpRequest& request() { return request_; }
  bool keep_alive() const { return keep_alive_; }
  bool http11() const { return http11_; }
  bool has_body() const { return has_body_; }
  // The client waits for "100 Continue" before it sends the body.
  bool expects_continue() const { return expects_continue_; }

  // At kFault: the status to answer and why. The connection cannot be used further.
  int fault_status() const { return fault_status_; }
  const std::string& fault_message() const { return fault_message_; }

 private:
  struct Beast;

  size_t FeedHeader(std::string_view input);
  size_t FeedBody(std::string_view input);
  bool RawHeaderIsStrict(std::string_view header);
  bool AcceptHeader();
  bool AcceptFraming();
  bool AcceptTarget(std::string_view target);
  bool Fail(int status, std::string message);
  void KeepClientsId();

  Limits limits_;
  std::unique_ptr<Beast> beast_;
  State state_ = State::kHeader;
  HttpRequest request_;
  bool keep_alive_ = false;
  bool http11_ = true;
  bool has_body_ = false;
  bool expects_continue_ = false;
  int fault_status_ = 0;
  std::string fault_message_;
};

// "%2F" and the like decoded; false for a malformed escape or a NUL.
bool PercentDecode(std::string_view text, std::string& out);

}  // namespace muselet
