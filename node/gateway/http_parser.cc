#include "node/gateway/http_parser.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "base/types.h"

namespace muselet {
namespace {

namespace http = boost::beast::http;

constexpr size_t kHeadersMax = 64;
constexpr size_t kTargetBytesMax = 4096;
constexpr size_t kRequestIdBytesMax = 128;
constexpr size_t kChunkLineBytesMax = 4096;  // a chunk's size line with its extensions, or trailers

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return lower;
}

bool IsRequestId(std::string_view text) {
  return !text.empty() && text.size() <= kRequestIdBytesMax &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

size_t Count(const HttpHeaders& headers, std::string_view name) {
  return static_cast<size_t>(std::count_if(headers.begin(), headers.end(),
                                           [&](const auto& h) { return h.first == name; }));
}

}  // namespace

bool PercentDecode(std::string_view text, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = HexDigit(text[i + 1]);
    const int low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0 || high + low == 0) return false;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return true;
}

struct HttpParser::Beast {
  http::request_parser<http::string_body> parser;
};

HttpParser::HttpParser(const Limits& limits) : limits_(limits), beast_(std::make_unique<Beast>()) {
  beast_->parser.header_limit(limits.header_bytes_max);
  beast_->parser.body_limit(limits.body_bytes_max);
}

HttpParser::~HttpParser() = default;

bool HttpParser::Fail(int status, std::string message) {
  state_ = State::kFault;
  keep_alive_ = false;
  fault_status_ = status;
  fault_message_ = std::move(message);
  if (request_.id.empty()) KeepClientsId();
  return false;
}

// What was read of a refused header may hold the id by which the client will look for the answer.
void HttpParser::KeepClientsId() {
  const auto& message = beast_->parser.get();
  const auto found = message.find("X-Request-Id");
  if (found == message.end()) return;
  const std::string_view id(found->value().data(), found->value().size());
  if (IsRequestId(id)) request_.id = id;
}

size_t HttpParser::Feed(std::string_view input) {
  if (state_ == State::kHeader) return FeedHeader(input);
  if (state_ == State::kBody) return FeedBody(input);
  return 0;
}

size_t HttpParser::FeedHeader(std::string_view input) {
  // Clients of old send an empty line after a body (RFC 9112, section 2.2).
  if (input.substr(0, 2) == "\r\n") return 2;
  const size_t end = input.find("\r\n\r\n");
  const std::string_view header = end == std::string_view::npos ? input : input.substr(0, end + 4);
  if (header.size() > limits_.header_bytes_max) {
    Fail(431, "the request header is larger than " + std::to_string(limits_.header_bytes_max) +
                  " bytes");
    return 0;
  }
  if (!RawHeaderIsStrict(header) || end == std::string_view::npos) return 0;

  boost::beast::error_code error;
  const size_t used = beast_->parser.put(boost::asio::buffer(header.data(), header.size()), error);
  if (error == http::error::body_limit) {
    Fail(413,
         "the request body is larger than " + std::to_string(limits_.body_bytes_max) + " bytes");
    return 0;
  }
  if (error == http::error::bad_version) {
    Fail(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    return 0;
  }
  if (error && error != http::error::need_more) {
    Fail(400, "malformed HTTP request: " + error.message());
    return 0;
  }
  if (!beast_->parser.is_header_done()) {
    Fail(400, "malformed HTTP request header");
    return 0;
  }
  has_body_ = !beast_->parser.is_done();
  if (AcceptHeader()) state_ = State::kBody;
  return used;
}

bool HttpParser::RawHeaderIsStrict(std::string_view header) {
  for (size_t i = 0; i < header.size(); ++i) {
    const char c = header[i];
    if (c == '\0') return Fail(400, "malformed HTTP request: NUL in the header");
    if (c == '\n' && (i == 0 || header[i - 1] != '\r'))
      return Fail(400, "malformed HTTP request: lines must end with CR LF");
    if (c == '\r' && i + 1 < header.size() && header[i + 1] != '\n')
      return Fail(400, "malformed HTTP request: lone CR in the header");
    if ((c == ' ' || c == '\t') && i > 0 && header[i - 1] == '\n')
      return Fail(400, "malformed HTTP request: folded header lines are not accepted");
  }
  return true;
}

bool HttpParser::AcceptHeader() {
  const auto& message = beast_->parser.get();
  for (const auto& field : message) {
    request_.headers.emplace_back(Lower({field.name_string().data(), field.name_string().size()}),
                                  std::string(field.value().data(), field.value().size()));
  }
  if (request_.headers.size() > kHeadersMax)
    return Fail(431, "more than " + std::to_string(kHeadersMax) + " header fields");
  http11_ = message.version() == 11;
  if (message.version() != 11 && message.version() != 10)
    return Fail(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  keep_alive_ = message.keep_alive();
  request_.method.assign(message.method_string().data(), message.method_string().size());
  const std::string_view id = request_.Header("x-request-id");
  request_.id = IsRequestId(id) ? std::string(id) : RequestId::Random().ToString();
  return AcceptFraming() && AcceptTarget({message.target().data(), message.target().size()});
}

bool HttpParser::AcceptFraming() {
  const HttpHeaders& headers = request_.headers;
  const size_t hosts = Count(headers, "host");
  if (hosts > 1) return Fail(400, "more than one Host header");
  if (hosts == 0 && http11_) return Fail(400, "HTTP/1.1 requests need a Host header");
  const size_t lengths = Count(headers, "content-length");
  const size_t codings = Count(headers, "transfer-encoding");
  if (lengths > 1) return Fail(400, "more than one Content-Length header");
  const std::string_view length = request_.Header("content-length");
  if (lengths == 1 && (length.empty() || !std::all_of(length.begin(), length.end(), IsDigit)))
    return Fail(400, "Content-Length must be one number");
  if (lengths > 0 && codings > 0)
    return Fail(400, "both Content-Length and Transfer-Encoding are given");
  if (codings > 0 && !http11_) return Fail(400, "Transfer-Encoding needs HTTP/1.1");
  if (codings > 1 || (codings == 1 && Lower(request_.Header("transfer-encoding")) != "chunked"))
    return Fail(501, "the only Transfer-Encoding understood is chunked");
  const std::string encoding = Lower(request_.Header("content-encoding"));
  if (!encoding.empty() && encoding != "identity")
    return Fail(415, "Content-Encoding " + encoding + " is not understood: send plain JSON");
  const std::string expect = Lower(request_.Header("expect"));
  if (!expect.empty() && expect != "100-continue")
    return Fail(417, "the only Expect understood is 100-continue");
  expects_continue_ = !expect.empty() && http11_;
  return true;
}

bool HttpParser::AcceptTarget(std::string_view target) {
  if (target.size() > kTargetBytesMax)
    return Fail(414, "the URL is longer than " + std::to_string(kTargetBytesMax) + " bytes");
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.substr(0, scheme.size()) != scheme) continue;
    target.remove_prefix(scheme.size());
    const size_t slash = target.find('/');
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  const size_t fragment = target.find('#');
  if (fragment != std::string_view::npos) return Fail(400, "a fragment in the request target");
  const size_t question = target.find('?');
  if (question != std::string_view::npos) request_.query = target.substr(question + 1);
  const std::string_view path = target.substr(0, question);
  if (path.empty() || (path[0] != '/' && path != "*"))
    return Fail(400, "the request target must be a path");
  if (!PercentDecode(path, request_.path)) return Fail(400, "malformed escape in the URL");
  return true;
}

size_t HttpParser::FeedBody(std::string_view input) {
  boost::beast::error_code error;
  size_t used = 0;
  while (!beast_->parser.is_done() && used < input.size()) {
    const size_t step =
        beast_->parser.put(boost::asio::buffer(input.data() + used, input.size() - used), error);
    used += step;
    if (error || step == 0) break;
  }
  if (beast_->parser.is_done()) {
    request_.body = std::move(beast_->parser.get().body());
    state_ = State::kDone;
    return used;
  }
  if (error == http::error::body_limit) {
    Fail(413,
         "the request body is larger than " + std::to_string(limits_.body_bytes_max) + " bytes");
  } else if (error && error != http::error::need_more) {
    Fail(400, "malformed HTTP request body: " + error.message());
  } else if (input.size() - used > kChunkLineBytesMax) {
    Fail(400, "malformed HTTP request body: a chunk line or trailer is too long");
  }
  return used;
}

}  // namespace muselet
