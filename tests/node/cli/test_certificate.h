// A certificate made on the spot, signed by itself, for a server on loopback.
#pragma once

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <csignal>
#include <memory>
#include <string>

#include "base/check.h"

namespace muselet::testing {

class TestCertificate {
 public:
  // `names` as in openssl's subjectAltName: "IP:127.0.0.1", "DNS:localhost".
  explicit TestCertificate(const std::string& names)
      : key_(EVP_EC_gen("P-256"), &EVP_PKEY_free),
        certificate_(X509_new(), &X509_free),
        context_(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free) {
    constexpr long kHourS = 3600;
    X509* x509 = certificate_.get();
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to connections that clients have closed
    CHECK(key_ != nullptr && x509 != nullptr && context_ != nullptr);
    X509_set_version(x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), -kHourS);
    X509_gmtime_adj(X509_getm_notAfter(x509), kHourS);
    X509_NAME* name = X509_get_subject_name(x509);
    const auto* common_name = reinterpret_cast<const unsigned char*>("muselet test");
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, common_name, -1, -1, 0);
    X509_set_issuer_name(x509, name);
    X509_set_pubkey(x509, key_.get());
    Extend(NID_basic_constraints, "critical,CA:TRUE");
    Extend(NID_subject_alt_name, names);
    CHECK(X509_sign(x509, key_.get(), EVP_sha256()) > 0);
    CHECK(SSL_CTX_use_certificate(context_.get(), x509) == 1);
    CHECK(SSL_CTX_use_PrivateKey(context_.get(), key_.get()) == 1);
  }

  // For a server that shows this certificate. Borrowed.
  SSL_CTX* server() const { return context_.get(); }

  // The certificate as PEM text, to be believed as an authority.
  std::string Pem() const {
    const std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new(BIO_s_mem()), &BIO_free);
    CHECK(PEM_write_bio_X509(memory.get(), certificate_.get()) == 1);
    char* data = nullptr;
    const long size = BIO_get_mem_data(memory.get(), &data);
    return std::string(data, static_cast<size_t>(size));
  }

 private:
  void Extend(int id, const std::string& value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, id, value.c_str());
    CHECK(extension != nullptr, value);
    CHECK(X509_add_ext(certificate_.get(), extension, -1) == 1);
    X509_EXTENSION_free(extension);
  }

  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_;
  std::unique_ptr<X509, decltype(&X509_free)> certificate_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
};

}  // namespace muselet::testing
