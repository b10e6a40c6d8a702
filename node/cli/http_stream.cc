#include "node/cli/http_stream.h"

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <boost/asio/ip/address.hpp>

namespace muselet {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

bool IsIpAddress(const std::string& host) {
  error_code fault;
  asio::ip::make_address(host, fault);
  return !fault;
}

}  // namespace

Result<std::shared_ptr<TlsClient>> TlsClient::Create(const std::string& host,
                                                     const TlsTrust& trust) {
  std::shared_ptr<TlsClient> client(new TlsClient(host, trust.insecure));
  error_code fault;
  if (!trust.ca_file.empty()) {
    client->context_.load_verify_file(trust.ca_file, fault);
    if (fault) {
      return InvalidArgument(trust.ca_file +
                             ": no certificates can be read from it: " + fault.message());
    }
  } else {
    client->context_.set_default_verify_paths(fault);
    if (fault) return Unavailable("the system's certificates cannot be read: " + fault.message());
  }
  client->context_.set_verify_mode(trust.insecure ? asio::ssl::verify_none
                                                  : asio::ssl::verify_peer);
  return client;
}

void TlsClient::Prepare(SSL* connection) const {
  const bool address = IsIpAddress(host_);
  if (!address) SSL_set_tlsext_host_name(connection, host_.c_str());
  if (insecure_) return;
  X509_VERIFY_PARAM* wanted = SSL_get0_param(connection);
  if (address) {
    X509_VERIFY_PARAM_set1_ip_asc(wanted, host_.c_str());
  } else {
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    X509_VERIFY_PARAM_set1_host(wanted, host_.c_str(), host_.size());
  }
}

Status TlsClient::Explain(SSL* connection, const error_code& fault) const {
  const long verdict = SSL_get_verify_result(connection);
  if (verdict != X509_V_OK && !insecure_) {
    return Unavailable("the certificate of " + host_ +
                       " is not to be believed: " + X509_verify_cert_error_string(verdict) +
                       " (--ca-file FILE names its authority, --insecure believes everybody)");
  }
  return Unavailable("no TLS connection: " + fault.message() +
                     " (does the server speak http:// only?)");
}

HttpStream::HttpStream(asio::io_context& io, const Endpoints& endpoints,
                       std::shared_ptr<TlsClient> tls)
    : endpoints_(endpoints), tcp_(io), tls_(std::move(tls)) {
  if (tls_) {
    secure_.emplace(tcp_, tls_->context());
    tls_->Prepare(secure_->native_handle());
  }
}

void HttpStream::AsyncConnect(OnConnect done) {
  tcp_.async_connect(endpoints_, [this, done = std::move(done)](error_code fault, const auto&) {
    if (fault) return done(Unavailable("cannot connect: " + fault.message()), fault);
    error_code ignored;
    tcp_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
    if (!secure_) return done(OkStatus(), {});
    secure_->async_handshake(asio::ssl::stream_base::client, [this, done](error_code unsafe) {
      done(unsafe ? tls_->Explain(secure_->native_handle(), unsafe) : OkStatus(), unsafe);
    });
  });
}

}  // namespace muselet
