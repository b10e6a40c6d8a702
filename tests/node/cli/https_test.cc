#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "node/cli/bench.h"
#include "node/cli/chat.h"
#include "node/cli/http_client.h"
#include "tests/node/cli/fake_openai_server.h"
#include "tests/node/cli/test_certificate.h"

namespace muselet {
namespace {

using testing::FakeOpenAiServer;
using ::testing::HasSubstr;
using testing::TestCertificate;

std::string Answer(const std::string& target, const std::string&, const std::string&) {
  return target == "/v1/models" ? FakeOpenAiServer::Models() : FakeOpenAiServer::Stream(2, true);
}

class HttpsTest : public ::testing::Test {
 protected:
  void Serve(const std::string& names, const FakeOpenAiServer::Script& script = Answer,
             bool keep_alive = true) {
    certificate_ = std::make_unique<TestCertificate>(names);
    server_ = std::make_unique<FakeOpenAiServer>(
        script, FakeOpenAiServer::Options{.keep_alive = keep_alive, .tls = certificate_->server()});
    ca_file_ = std::string(::testing::TempDir()) + "muselet_ca_" + std::to_string(getpid()) +
               std::to_string(server_->port()) + ".pem";
    std::ofstream(ca_file_) << certificate_->Pem();
  }
  void TearDown() override { unlink(ca_file_.c_str()); }

  std::string Url(const std::string& host) const {
    return "https://" + host + ":" + std::to_string(server_->port());
  }

  // The exit code of one question; what it prints is in out_ and err_.
  int Ask(const std::string& host, const TlsTrust& trust) {
    ChatOptions options;
    options.url = Url(host);
    options.trust = trust;
    options.once = "hello";
    options.has_once = true;
    std::istringstream in;
    std::ostringstream out;
    std::ostringstream err;
    const int exit_code = RunChat(options, {in, out, err});
    out_ = out.str();
    err_ = err.str();
    return exit_code;
  }

  std::unique_ptr<TestCertificate> certificate_;
  std::unique_ptr<FakeOpenAiServer> server_;
  std::string ca_file_;
  std::string out_;
  std::string err_;
};

TEST_F(HttpsTest, ACertificateThatNobodyVouchesForIsRefused) {
  Serve("IP:127.0.0.1");
  EXPECT_EQ(Ask("127.0.0.1", {}), 2);
  EXPECT_THAT(err_, HasSubstr("the certificate of 127.0.0.1 is not to be believed: self-signed "
                              "certificate (--ca-file FILE names its authority, --insecure"));
  EXPECT_EQ(out_, "");
  EXPECT_THAT(server_->bodies(), ::testing::IsEmpty());
}

TEST_F(HttpsTest, TheAuthorityOfACertificateCanBeNamed) {
  Serve("IP:127.0.0.1,DNS:localhost");
  for (const char* host : {"127.0.0.1", "localhost"}) {
    EXPECT_EQ(Ask(host, {.ca_file = ca_file_, .insecure = false}), 0) << err_;
    EXPECT_EQ(out_, "tok0 tok1 \n");
  }
}

TEST_F(HttpsTest, ACertificateForAnotherHostIsRefused) {
  Serve("DNS:example.org,IP:127.0.0.2");
  EXPECT_EQ(Ask("127.0.0.1", {.ca_file = ca_file_, .insecure = false}), 2);
  EXPECT_THAT(err_, HasSubstr("is not to be believed: IP address mismatch"));
  EXPECT_EQ(Ask("localhost", {.ca_file = ca_file_, .insecure = false}), 2);
  EXPECT_THAT(err_, HasSubstr("is not to be believed: hostname mismatch"));
}

TEST_F(HttpsTest, InsecureBelievesEverybody) {
  Serve("DNS:example.org");
  EXPECT_EQ(Ask("127.0.0.1", {.ca_file = "", .insecure = true}), 0) << err_;
  EXPECT_EQ(out_, "tok0 tok1 \n");
}

TEST_F(HttpsTest, FaultsOfTheFileOfAuthoritiesNameIt) {
  Serve("IP:127.0.0.1");
  EXPECT_EQ(Ask("127.0.0.1", {.ca_file = "no/such.pem", .insecure = false}), 2);
  EXPECT_THAT(err_, HasSubstr("no/such.pem: no certificates can be read from it"));
}

// The server closes without a word in TLS: enough where nothing else ends a body, and for an open
// connection that is no longer wanted; not where bytes are owed.
TEST_F(HttpsTest, AnEndOfTheConnectionIsAnEndOfWhatItMayEnd) {
  Serve(
      "IP:127.0.0.1",
      [](const std::string& target, const std::string& head, const std::string& body) {
        if (target == "/open") return std::string("HTTP/1.1 200 OK\r\n\r\nall of it");
        if (target == "/owed")
          return std::string("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
        return Answer(target, head, body);
      },
      false);
  const Result<HttpUrl> url = ParseHttpUrl(Url("127.0.0.1"));
  const Result<std::unique_ptr<HttpClient>> client =
      HttpClient::Open(*url, {.ca_file = ca_file_, .insecure = false});
  ASSERT_TRUE(client.ok());
  const auto get = [&](const std::string& target) {
    HttpRequest request;
    request.method = "GET";
    request.target = target;
    return Fetch(**client, request, 60'000'000);
  };
  const Result<HttpAnswer> open = get("/open");
  ASSERT_TRUE(open.ok()) << open.status().message();
  EXPECT_EQ(open->body, "all of it");
  EXPECT_EQ(get("/owed").status().code(), StatusCode::kDataLoss);
  BenchOptions options;
  options.url = Url("127.0.0.1");
  options.trust.ca_file = ca_file_;
  options.model = "m";
  options.requests = 5;
  options.concurrency = 1;
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  EXPECT_EQ(RunBench(options, {in, out, err}), 0) << err.str() << out.str();
}

TEST_F(HttpsTest, BenchKeepsSecureConnectionsToo) {
  Serve("IP:127.0.0.1");
  BenchOptions options;
  options.url = Url("127.0.0.1");
  options.trust.ca_file = ca_file_;
  options.model = "m";
  options.requests = 20;
  options.concurrency = 2;
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  EXPECT_EQ(RunBench(options, {in, out, err}), 0) << err.str();
  EXPECT_THAT(out.str(), HasSubstr("20 succeeded, 0 failed"));
  EXPECT_LE(server_->connections(), 2);
}

}  // namespace
}  // namespace muselet
