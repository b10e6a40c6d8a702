// A connection of the HTTP client: TCP, or TLS over TCP. An AsyncStream as Boost.Beast wants it, so
// it is included by the client's .cc file alone. All on the thread that runs the io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "node/cli/client_options.h"

namespace muselet {

// What the TLS connections to one host share: whom to believe, and which name to ask for.
class TlsClient {
 public:
  // kInvalidArgument names a ca_file that cannot be used.
  static Result<std::shared_ptr<TlsClient>> Create(const std::string& host, const TlsTrust& trust);

  boost::asio::ssl::context& context() { return context_; }
  // Before the handshake: the name for SNI, and the name that the certificate must be for.
  void Prepare(SSL* connection) const;
  // After a handshake that failed: what was wrong, and what to do.
  Status Explain(SSL* connection, const boost::system::error_code& fault) const;

 private:
  TlsClient(std::string host, bool insecure)
      : context_(boost::asio::ssl::context::tls_client),
        host_(std::move(host)),
        insecure_(insecure) {}

  boost::asio::ssl::context context_;
  std::string host_;
  bool insecure_;
};

class HttpStream {
 public:
  using executor_type = boost::beast::tcp_stream::executor_type;
  using Endpoints = std::vector<boost::asio::ip::tcp::endpoint>;
  using OnConnect = std::function<void(const Status& status, boost::system::error_code fault)>;

  // `endpoints` outlives the stream. `tls` is null for plain TCP.
  HttpStream(boost::asio::io_context& io, const Endpoints& endpoints,
             std::shared_ptr<TlsClient> tls);

  // Everything that is not done by then fails with beast::error::timeout.
  void ExpireAt(std::chrono::steady_clock::time_point deadline) { tcp_.expires_at(deadline); }
  // Connects and shakes hands. kUnavailable says what went wrong.
  void AsyncConnect(OnConnect done);

  executor_type get_executor() { return tcp_.get_executor(); }
  template <typename Buffers, typename Handler>
  void async_read_some(const Buffers& buffers, Handler&& handler) {
    if (secure_) {
      secure_->async_read_some(buffers, std::forward<Handler>(handler));
    } else {
      tcp_.async_read_some(buffers, std::forward<Handler>(handler));
    }
  }
  template <typename Buffers, typename Handler>
  void async_write_some(const Buffers& buffers, Handler&& handler) {
    if (secure_) {
      secure_->async_write_some(buffers, std::forward<Handler>(handler));
    } else {
      tcp_.async_write_some(buffers, std::forward<Handler>(handler));
    }
  }

 private:
  const Endpoints& endpoints_;
  boost::beast::tcp_stream tcp_;
  std::shared_ptr<TlsClient> tls_;
  std::optional<boost::asio::ssl::stream<boost::beast::tcp_stream&>> secure_;
};

}  // namespace muselet
