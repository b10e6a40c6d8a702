#include "node/gateway/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <tuple>

#include "node/gateway/admin_server.h"
#include "tests/node/gateway/http_client.h"
#include "tests/node/gateway/loop_thread.h"

namespace muselet {
namespace {

using testing::HttpClient;
using testing::HttpReply;
using testing::LoopThread;

class HttpServerTest : public ::testing::Test {
 protected:
  // Routes: GET /hello, POST /echo (its body), GET /item/*, GET /closed (not open), GET /stream
  // (an endless one, driven by the test), GET /drop (forgets to answer).
  void Serve(HttpServerOptions options = {}) {
    options.address = "127.0.0.1:0";
    options.responded = [this](int status) { statuses_.push_back(status); };
    HttpRoutes routes;
    routes.Add({"GET", "/hello", true, [](HttpRequest&, HttpExchangePtr exchange) {
                  exchange->Respond({200, "text/plain", {}, "hello"});
                }});
    routes.Add({"POST", "/echo", true, [](HttpRequest& request, HttpExchangePtr exchange) {
                  exchange->Respond({200, "text/plain", {}, request.body});
                }});
    routes.Add({"GET", "/item/*", true, [](HttpRequest& request, HttpExchangePtr exchange) {
                  exchange->Respond({200, "text/plain", {}, request.parameter});
                }});
    routes.Add({"GET", "/closed", false, [](HttpRequest& request, HttpExchangePtr exchange) {
                  exchange->Respond({200, "text/plain", {}, std::to_string(request.principal)});
                }});
    routes.Add({"GET", "/drop", true, [](HttpRequest&, HttpExchangePtr) {}});
    routes.Add({"GET", "/stream", true, [this](HttpRequest&, HttpExchangePtr exchange) {
                  exchange->OnAbandoned([this] { abandoned_.set_value(); });
                  HttpStreamHead head;
                  head.keep_alive = ": still here\n\n";
                  exchange->BeginStream(head);
                  exchange_ = exchange;
                  begun_.set_value();
                }});
    auto server = HttpServer::Start(std::move(options), std::move(routes), thread_.loop());
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = std::move(server).value();
    address_ = server_->address();
    thread_.Start();
  }
  void TearDown() override {
    thread_.Stop();
    exchange_.reset();
    server_.reset();
  }
  bool Abandoned() {
    return abandoned_.get_future().wait_for(testing::kPatience) == std::future_status::ready;
  }

  LoopThread thread_;
  std::unique_ptr<HttpServer> server_;
  std::string address_;
  std::vector<int> statuses_;
  HttpExchangePtr exchange_;
  std::promise<void> begun_;
  std::promise<void> abandoned_;
};

TEST_F(HttpServerTest, AnswersManyRequestsOnOneConnection) {
  Serve();
  HttpClient client(address_);
  for (int i = 0; i < 5; ++i) {
    const HttpReply reply = client.Post("/echo", std::string(1000 * i, 'a' + i));
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, std::string(1000 * i, 'a' + i));
    EXPECT_EQ(reply.Header("Connection"), "keep-alive");
  }
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  Serve();
  HttpClient client(address_);
  std::string all;
  for (int i = 0; i < 20; ++i) all += HttpClient::PostText("/echo", std::to_string(i));
  client.Send(all);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.Read().body, std::to_string(i));
}

TEST_F(HttpServerTest, KnowsItsRoutesAndMethods) {
  Serve();
  HttpClient client(address_);
  EXPECT_EQ(client.Get("/item/a/b%2Fc").body, "a/b/c");
  const HttpReply unknown = client.Get("/nope");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_NE(unknown.body.find(R"({"error":{"message":"no such route: GET /nope")"),
            std::string::npos);
  const HttpReply wrong = client.Get("/echo");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.Header("Allow"), "POST, OPTIONS");
  client.Send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpReply head = client.Read(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.Header("Content-Length"), "5");
  const HttpReply options = client.Ask("OPTIONS /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.Header("Allow"), "GET, HEAD, OPTIONS");
  EXPECT_EQ(client.Ask("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").status, 204);
  EXPECT_EQ(client.Get("/item/").status, 404);
  EXPECT_EQ(client.Get("/hello").body, "hello") << "the connection must still be in step";
}

TEST_F(HttpServerTest, AnswersAForgottenRequestWithAFault) {
  Serve();
  HttpClient client(address_);
  EXPECT_EQ(client.Get("/drop").status, 500);
}

TEST_F(HttpServerTest, EchoesTheRequestIdOrMakesOne) {
  Serve();
  HttpClient client(address_);
  EXPECT_EQ(client.Get("/hello", "X-Request-Id: my-id-1\r\n").Header("X-Request-Id"), "my-id-1");
  EXPECT_EQ(client.Get("/hello").Header("X-Request-Id").size(), 32U);
  EXPECT_EQ(client.Get("/hello", "X-Request-Id: two words\r\n").Header("X-Request-Id").size(), 32U);
}

TEST_F(HttpServerTest, DeniesWhatIsNotOpened) {
  HttpServerOptions options;
  options.authorize = [](HttpRequest& request) -> std::optional<HttpResponse> {
    if (request.Header("authorization").empty()) return HttpError(401, "who are you?");
    request.principal = 7;
    return std::nullopt;
  };
  Serve(std::move(options));
  HttpClient client(address_);
  EXPECT_EQ(client.Get("/closed").status, 401);
  EXPECT_EQ(client.Get("/closed", "Authorization: me\r\n").body, "7");
}

TEST_F(HttpServerTest, DeniesClosedRoutesWithoutAnAuthorizer) {
  Serve();
  HttpClient client(address_);
  EXPECT_EQ(client.Get("/closed").status, 403);
}

TEST_F(HttpServerTest, AsksForTheBodyOnlyIfItWillBeRead) {
  Serve();
  HttpClient client(address_);
  const std::string expect = "Expect: 100-continue\r\nHost: x\r\nContent-Length: ";
  client.Send("POST /echo HTTP/1.1\r\n" + expect + "2\r\n\r\n");
  EXPECT_EQ(client.Read().status, 100);
  client.Send("ok");
  EXPECT_EQ(client.Read().body, "ok");
  HttpClient refused(address_);
  EXPECT_EQ(refused.Ask("POST /nope HTTP/1.1\r\n" + expect + "2\r\n\r\n").status, 404);
  EXPECT_TRUE(refused.ReadToEnd());
  HttpClient large(address_);
  EXPECT_EQ(large.Ask("POST /echo HTTP/1.1\r\n" + expect + "9999999\r\n\r\n").status, 413);
}

TEST_F(HttpServerTest, ClosesAfterFaultsOfFraming) {
  Serve();
  HttpClient client(address_);
  const HttpReply reply = client.Ask("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Header("Connection"), "close");
  EXPECT_TRUE(client.ReadToEnd());
  EXPECT_EQ(HttpClient(address_).Get("/hello").status, 200);
}

TEST_F(HttpServerTest, DeliversTheRefusalOfABodyThatIsStillComing) {
  Serve();
  HttpClient client(address_);
  client.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n");
  client.Send(std::string(1 << 20, 'x'));
  EXPECT_EQ(client.Read().status, 413);
}

TEST_F(HttpServerTest, RefusesSlowHeadersAndBodies) {
  HttpServerOptions options;
  options.limits.header_timeout_us = 50'000;
  options.limits.body_timeout_us = 50'000;
  Serve(std::move(options));
  HttpClient header(address_);
  EXPECT_EQ(header.Ask("GET /hello HT").status, 408);
  EXPECT_TRUE(header.ReadToEnd());
  HttpClient body(address_);
  EXPECT_EQ(body.Ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab").status, 408);
  EXPECT_TRUE(body.ReadToEnd());
}

TEST_F(HttpServerTest, ClosesIdleConnectionsAndSilentOnes) {
  HttpServerOptions options;
  options.limits.header_timeout_us = 50'000;
  options.limits.idle_timeout_us = 50'000;
  Serve(std::move(options));
  HttpClient silent(address_);
  EXPECT_TRUE(silent.ReadToEnd());
  HttpClient idle(address_);
  EXPECT_EQ(idle.Get("/hello").status, 200);
  EXPECT_TRUE(idle.ReadToEnd());
}

TEST_F(HttpServerTest, TellsThoseOverTheLimitOfConnections) {
  HttpServerOptions options;
  options.limits.connections_max = 20;
  Serve(std::move(options));
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<HttpClient>(address_));
    EXPECT_EQ(clients.back()->Get("/hello").status, 200);
  }
  HttpClient over(address_);
  const HttpReply reply = over.Get("/hello");
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Header("Retry-After"), "1");
  EXPECT_TRUE(over.ReadToEnd());
  EXPECT_EQ(clients.front()->Get("/hello").status, 200) << "the others are undisturbed";
}

TEST_F(HttpServerTest, StreamsInChunksAndKeepsTheConnection) {
  Serve();
  HttpClient client(address_);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  begun_.get_future().wait();
  thread_.Do([&] {
    exchange_->Write("data: 1\n\n");
    exchange_->Write("data: 2\n\n");
    exchange_->End();
  });
  const HttpReply reply = client.Read();
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("Content-Type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(reply.body, "data: 1\n\ndata: 2\n\n");
  EXPECT_EQ(client.Get("/hello").body, "hello");
}

TEST_F(HttpServerTest, StreamsToOldClientsUntilTheConnectionEnds) {
  Serve();
  HttpClient client(address_);
  client.Send("GET /stream HTTP/1.0\r\n\r\n");
  begun_.get_future().wait();
  thread_.Do([&] {
    exchange_->Write("plain");
    exchange_->End();
  });
  EXPECT_NE(client.ReadUntil("\r\n\r\n").find("Connection: close"), std::string::npos);
  EXPECT_EQ(client.ReadUntil("plain"), "plain");
  EXPECT_TRUE(client.ReadToEnd());
}

TEST_F(HttpServerTest, AStreamNotYetBegunMayStillAnswerWithAnotherStatus) {
  Serve();
  HttpClient client(address_);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  begun_.get_future().wait();
  thread_.Do([&] { exchange_->Respond(HttpError(429, "later")); });
  EXPECT_EQ(client.Read().status, 429);
}

TEST_F(HttpServerTest, SpeaksUpInSilentStreams) {
  HttpServerOptions options;
  options.limits.keep_alive_interval_us = 20'000;
  Serve(std::move(options));
  HttpClient client(address_);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.ReadUntil(": still here\n\n"), "");
  EXPECT_NE(client.ReadUntil(": still here\n\n"), "");
}

TEST_F(HttpServerTest, NoticesAtOnceThatTheClientWentAway) {
  Serve();
  HttpClient client(address_);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  begun_.get_future().wait();
  client.Close();
  EXPECT_TRUE(Abandoned());
  thread_.Do([&] { exchange_->Write("to nobody"); });
}

TEST_F(HttpServerTest, NoticesAReset) {
  Serve();
  HttpClient client(address_);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  begun_.get_future().wait();
  client.Reset();
  EXPECT_TRUE(Abandoned());
}

TEST_F(HttpServerTest, EndsAStreamWhoseReaderFallsBehindItsBuffer) {
  HttpServerOptions options;
  options.limits.stream_buffer_bytes = 64 * 1024;
  Serve(std::move(options));
  HttpClient client(address_, 4096);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  begun_.get_future().wait();
  // More than the kernel's buffers can hide.
  for (int i = 0; i < 4000; ++i) thread_.Do([&] { exchange_->Write(std::string(8192, 'x')); });
  EXPECT_TRUE(Abandoned());
}

TEST_F(HttpServerTest, EndsAStreamWhoseReaderStopsReading) {
  HttpServerOptions options;
  options.limits.stream_buffer_bytes = 64 << 20;
  options.limits.write_timeout_us = 100'000;
  Serve(std::move(options));
  HttpClient client(address_, 4096);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  begun_.get_future().wait();
  thread_.Do([&] { exchange_->Write(std::string(32 << 20, 'x')); });
  EXPECT_TRUE(Abandoned());
}

TEST_F(HttpServerTest, DrainsByFinishingWhatRunsWhileItStillAnswers) {
  Serve();
  HttpClient idle(address_);
  EXPECT_EQ(idle.Get("/hello").status, 200);
  HttpClient silent(address_);
  HttpClient busy(address_);
  busy.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  begun_.get_future().wait();
  std::promise<void> drained;
  thread_.Do([&] { server_->Drain([&] { drained.set_value(); }); });
  const HttpReply old = idle.Get("/hello");
  EXPECT_EQ(old.status, 200);
  EXPECT_EQ(old.Header("Connection"), "close");
  EXPECT_TRUE(idle.ReadToEnd());
  EXPECT_EQ(HttpClient(address_).Get("/hello").status, 200);
  auto end = drained.get_future();
  EXPECT_EQ(end.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  thread_.Do([&] {
    exchange_->Write("last words");
    exchange_->End();
  });
  EXPECT_EQ(busy.Read().body, "last words");
  // The client keeps its side open: its answer is out, nobody waits for it.
  EXPECT_EQ(end.wait_for(testing::kPatience), std::future_status::ready);
  EXPECT_TRUE(silent.ReadToEnd());
  EXPECT_FALSE(HttpClient(address_).connected());
}

TEST_F(HttpServerTest, DrainsAtOnceWhenNothingRuns) {
  Serve();
  HttpClient idle(address_);
  EXPECT_EQ(idle.Get("/hello").status, 200);
  std::promise<void> drained;
  thread_.Do([&] { server_->Drain([&] { drained.set_value(); }); });
  EXPECT_EQ(drained.get_future().wait_for(testing::kPatience), std::future_status::ready);
  EXPECT_TRUE(idle.ReadToEnd());
  EXPECT_FALSE(HttpClient(address_).connected());
}

// Whatever goes wrong, and however early: support finds the answer by its id and its time.
TEST_F(HttpServerTest, EveryAnswerHasAnIdAndADate) {
  HttpServerOptions options;
  options.limits.body_bytes_max = 1000;
  options.limits.header_bytes_max = 2000;
  options.limits.header_timeout_us = 50'000;
  Serve(std::move(options));
  const std::string id = "X-Request-Id: mine\r\n";
  const std::string long_header = "X: " + std::string(3000, 'x') + "\r\n";
  const std::tuple<int, std::string, std::string> cases[] = {
      {200, "GET /hello HTTP/1.1\r\nHost: x\r\n" + id + "\r\n", "mine"},
      {404, "GET /nowhere HTTP/1.1\r\nHost: x\r\n" + id + "\r\n", "mine"},
      {405, "DELETE /hello HTTP/1.1\r\nHost: x\r\n" + id + "\r\n", "mine"},
      {403, "GET /closed HTTP/1.1\r\nHost: x\r\n" + id + "\r\n", "mine"},
      {413, "POST /echo HTTP/1.1\r\nHost: x\r\n" + id + "Content-Length: 9999\r\n\r\n", "mine"},
      {400, "GET /hello HTTP/1.1\r\n" + id + "\r\n", "mine"},
      {400, "nonsense\r\n\r\n", ""},
      {431, "GET /hello HTTP/1.1\r\nHost: x\r\n" + long_header + "\r\n", ""},
      {408, "GET /hel", ""},
  };
  for (const auto& [status, bytes, expected_id] : cases) {
    HttpClient client(address_);
    const HttpReply reply = client.Ask(bytes);
    EXPECT_EQ(reply.status, status) << bytes.substr(0, 60);
    const std::string got = reply.Header("X-Request-Id");
    EXPECT_TRUE(expected_id.empty() ? got.size() == 32 : got == expected_id) << reply.head;
    EXPECT_TRUE(reply.Header("Date").ends_with(" GMT")) << reply.head;
  }
}

TEST_F(HttpServerTest, AFaultDoesNotBearTheIdOfTheRequestBefore) {
  Serve();
  HttpClient client(address_);
  EXPECT_EQ(client.Get("/hello", "X-Request-Id: first\r\n").Header("X-Request-Id"), "first");
  const HttpReply fault = client.Ask("nonsense\r\n\r\n");
  EXPECT_EQ(fault.status, 400);
  EXPECT_EQ(fault.Header("X-Request-Id").size(), 32U) << fault.head;
}

TEST(HttpDateTest, IsWrittenAsRfc9110Says) {
  EXPECT_EQ(HttpDate(784'111'777), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(HttpDate(0), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(HttpDate(1'709'210'096), "Thu, 29 Feb 2024 12:34:56 GMT");
}

Status StartAt(const std::string& address, EventLoop& loop) {
  HttpServerOptions options;
  options.address = address;
  return HttpServer::Start(std::move(options), {}, loop).status();
}

TEST(HttpServerAddressTest, SaysWhatToChangeWhenItCannotListen) {
  EventLoop loop("test");
  HttpServerOptions options;
  options.address = "127.0.0.1:0";
  auto first = HttpServer::Start(std::move(options), {}, loop);
  ASSERT_TRUE(first.ok());
  const std::string taken = (*first)->address();
  EXPECT_EQ(StartAt(taken, loop), Unavailable(taken + " is in use: choose another with --http"));
  EXPECT_EQ(StartAt("192.0.2.1:8000", loop),
            InvalidArgument("this machine has no address 192.0.2.1:8000: choose another with "
                            "--http"));
  for (const char* bad : {"", "8000", ":8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999",
                          "127.0.0.1:80x", "::1:8000", "[]:1"}) {
    EXPECT_EQ(StartAt(bad, loop).code(), StatusCode::kInvalidArgument) << bad;
  }
}

TEST(AdminServerTest, ServesProbesAndMetrics) {
  LoopThread thread;
  MetricRegistry registry;
  RegisterBuildInfo(registry, "1.2.3", "abc");
  std::atomic<bool> ready = false;
  AdminServerOptions options;
  options.address = "127.0.0.1:0";
  options.version = "1.2.3";
  options.ready = [&] { return ready ? OkStatus() : Unavailable("no replica yet"); };
  auto server = AdminServer::Start(std::move(options), thread.loop(), registry);
  ASSERT_TRUE(server.ok());
  thread.Start();
  {
    HttpClient client((*server)->address());
    EXPECT_EQ(client.Get("/livez").status, 200);
    const HttpReply early = client.Get("/readyz");
    EXPECT_EQ(early.status, 503);
    EXPECT_EQ(early.body, R"({"status":"unavailable","reason":"no replica yet"})");
    ready = true;
    EXPECT_EQ(client.Get("/readyz").status, 200);
    const HttpReply metrics = client.Get("/metrics");
    EXPECT_EQ(metrics.Header("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    EXPECT_NE(metrics.body.find("muselet_build_info{"), std::string::npos);
    EXPECT_EQ(client.Get("/version").body, R"({"version":"1.2.3"})");
  }
  thread.Stop();
}

}  // namespace
}  // namespace muselet
