#include "node/gateway/rpc_server.h"

#include <gtest/gtest.h>

#include <zmq.hpp>

#include "frontend.pb.h"
#include "tests/node/gateway/echo_service.h"
#include "tests/node/gateway/gateway_fakes.h"

namespace muselet {
namespace {

// Speaks the wire by hand; the bundled client is tested in tests/comms/client.
class RpcServerTest : public ::testing::Test {
 protected:
  RpcServerTest() : service_(loop_) {
    RpcServerOptions options;
    options.endpoint = "tcp://127.0.0.1:0";
    options.authorize = [](std::string_view) -> Result<RpcCaller> { return RpcCaller(); };
    options.calls_max = 2;
    options.client_timeout_us = 200'000;
    options.message_bytes_max = 100'000;
    auto server = RpcServer::Start(options, service_, loop_, context_);
    CHECK(server.ok(), server.status().message());
    server_ = std::move(*server);
    dealer_ = Connect(zmq::socket_type::dealer);
  }

  zmq::socket_t Connect(zmq::socket_type type) {
    zmq::socket_t socket(context_.zmq(), type);
    socket.set(zmq::sockopt::linger, 0);
    socket.connect(server_->endpoint());
    return socket;
  }

  void Send(zmq::socket_t& socket, const std::string& bytes) {
    socket.send(zmq::buffer(bytes), zmq::send_flags::none);
  }
  static std::string Generate(uint64_t call_id, const std::string& text) {
    v1::Request request;
    request.set_version(1);
    request.set_call_id(call_id);
    request.mutable_generate()->set_text(text);
    return request.SerializeAsString();
  }
  // The next response that comes, with the loop turning meanwhile.
  v1::Response Next(zmq::socket_t& socket) {
    v1::Response response;
    zmq::message_t message;
    EXPECT_TRUE(testing::TurnUntil(
        loop_, [&] { return socket.recv(message, zmq::recv_flags::dontwait).has_value(); }));
    EXPECT_TRUE(response.ParseFromArray(message.data(), static_cast<int>(message.size())));
    return response;
  }

  EventLoop loop_{"rpc"};
  WireContext context_;
  testing::EchoService service_;
  std::unique_ptr<RpcServer> server_;
  zmq::socket_t dealer_;
};

TEST_F(RpcServerTest, ChunksSayHowToResumeAndAWrongIdIsRefused) {
  RpcServerOptions options;
  options.endpoint = "tcp://127.0.0.1:0";
  options.authorize = [](std::string_view) -> Result<RpcCaller> { return RpcCaller(); };
  options.origins = std::make_shared<RequestOrigins>(ClusterSecret::Random(), 10);
  auto server = RpcServer::Start(options, service_, loop_, context_);
  ASSERT_TRUE(server.ok()) << server.status().message();
  server_ = std::move(*server);
  zmq::socket_t socket = Connect(zmq::socket_type::dealer);
  v1::Request request;
  ASSERT_TRUE(request.ParseFromString(Generate(1, "ab")));
  const auto answer = [&](uint64_t call_id, std::string& event_id) {
    request.set_call_id(call_id);
    Send(socket, request.SerializeAsString());
    for (;;) {
      const v1::Response response = Next(socket);
      if (!response.chunk().event_id().empty()) event_id = response.chunk().event_id();
      if (response.final()) return response;
    }
  };
  std::string event_id;
  EXPECT_FALSE(answer(1, event_id).has_error());
  ASSERT_EQ(event_id.find('.'), 44U) << event_id;
  request.mutable_generate()->set_last_event_id(event_id);
  std::string again;
  EXPECT_FALSE(answer(2, again).has_error());
  request.mutable_generate()->set_text("other");
  const v1::Response refused = answer(3, again);
  EXPECT_EQ(refused.error().code(), "invalid_argument");
  EXPECT_EQ(refused.error().reason(), "event_id_mismatch");
  request.mutable_generate()->clear_last_event_id();
  request.mutable_generate()->set_idempotency_key("key");
  EXPECT_FALSE(answer(4, again).has_error());
  request.mutable_generate()->set_text("yet another");
  EXPECT_EQ(answer(5, again).error().reason(), "idempotency_key_reused");
}

TEST_F(RpcServerTest, AnswersEveryRequestUnderItsCallId) {
  Send(dealer_, Generate(17, "ab"));
  Send(dealer_, Generate(18, "c"));
  std::map<uint64_t, std::string> texts;
  for (int finals = 0; finals < 2;) {
    const v1::Response response = Next(dealer_);
    ASSERT_FALSE(response.has_error()) << response.error().message();
    EXPECT_EQ(response.version(), 1U);
    texts[response.call_id()] += response.chunk().text();
    if (!response.final()) continue;
    ++finals;
    EXPECT_TRUE(response.chunk().has_usage());
  }
  EXPECT_EQ(texts, (std::map<uint64_t, std::string>{{17, "ab"}, {18, "c"}}));
  EXPECT_EQ(server_->open_calls(), 0U);
}

TEST_F(RpcServerTest, SurvivesNonsenseAndSaysWhatIsWrong) {
  Send(dealer_, "\xFF\xFF nonsense");
  EXPECT_EQ(Next(dealer_).error().code(), "invalid_argument");
  v1::Request request;
  request.set_call_id(5);
  request.set_version(7);
  Send(dealer_, request.SerializeAsString());
  const v1::Response old = Next(dealer_);
  EXPECT_EQ(old.call_id(), 5U);
  EXPECT_EQ(old.error().param(), "version");
  request.set_version(1);
  Send(dealer_, request.SerializeAsString());
  EXPECT_EQ(Next(dealer_).error().param(), "call");
  request.mutable_generate();
  Send(dealer_, request.SerializeAsString());
  EXPECT_EQ(Next(dealer_).error().param(), "prompt");
  EXPECT_EQ(service_.started.load(), 0);
  Send(dealer_, Generate(6, "a"));
  EXPECT_EQ(Next(dealer_).chunk().text(), "a");
}

TEST_F(RpcServerTest, ARequestSocketMayMakeUnaryCalls) {
  zmq::socket_t req = Connect(zmq::socket_type::req);
  v1::Request request;
  request.set_version(1);
  request.mutable_health();
  Send(req, request.SerializeAsString());
  EXPECT_TRUE(Next(req).health().ready());
  service_.ready = false;
  Send(req, request.SerializeAsString());
  const v1::Response response = Next(req);
  EXPECT_FALSE(response.health().ready());
  EXPECT_EQ(response.health().detail(), "no replica");
}

TEST_F(RpcServerTest, BoundsTheOpenCallsOfAClientAndRefusesATakenCallId) {
  service_.endless = true;
  Send(dealer_, Generate(1, "x"));
  Send(dealer_, Generate(1, "x"));
  v1::Response response = Next(dealer_);
  while (!response.has_error()) response = Next(dealer_);
  EXPECT_EQ(response.error().param(), "call_id");
  Send(dealer_, Generate(2, "x"));
  Send(dealer_, Generate(3, "x"));
  response = Next(dealer_);
  while (!response.has_error()) response = Next(dealer_);
  EXPECT_EQ(response.call_id(), 3U);
  EXPECT_EQ(response.error().code(), "resource_exhausted");
  EXPECT_EQ(server_->open_calls(), 2U);
}

TEST_F(RpcServerTest, CancelEndsACallForItsClientToo) {
  service_.endless = true;
  Send(dealer_, Generate(1, "x"));
  EXPECT_EQ(Next(dealer_).chunk().text(), "x");
  v1::Request cancel;
  cancel.set_version(1);
  cancel.set_call_id(2);
  cancel.mutable_cancel()->set_generate_call_id(1);
  Send(dealer_, cancel.SerializeAsString());
  v1::Response response = Next(dealer_);
  while (!response.final()) response = Next(dealer_);
  EXPECT_EQ(response.call_id(), 1U);
  EXPECT_EQ(response.error().code(), "cancelled");
  EXPECT_EQ(Next(dealer_).call_id(), 2U);
  EXPECT_EQ(service_.cancelled.load(), 1);
  EXPECT_EQ(server_->open_calls(), 0U);
}

TEST_F(RpcServerTest, AClientThatGoesAwayIsCancelled) {
  service_.endless = true;
  Send(dealer_, Generate(1, "x"));
  EXPECT_EQ(Next(dealer_).chunk().text(), "x");
  dealer_.close();
  EXPECT_TRUE(testing::TurnUntil(loop_, [&] { return server_->open_calls() == 0; }));
  EXPECT_EQ(service_.cancelled.load(), 1);
}

// Back-pressure: the queue to a client that does not read is bounded, its call is cancelled, and it
// reads what was sent in order and then why there is no more.
TEST_F(RpcServerTest, AClientThatDoesNotReadIsCancelledAndToldOnceItReads) {
  RpcServerOptions options;
  options.endpoint = "inproc://slow-reader";
  options.authorize = [](std::string_view) -> Result<RpcCaller> { return RpcCaller(); };
  options.queue_messages_max = 16;
  options.client_timeout_us = 8'000'000;
  auto server = RpcServer::Start(options, service_, loop_, context_);
  ASSERT_TRUE(server.ok()) << server.status().message();
  zmq::socket_t slow(context_.zmq(), zmq::socket_type::dealer);
  slow.set(zmq::sockopt::linger, 0);
  slow.set(zmq::sockopt::rcvhwm, 1);
  slow.connect(options.endpoint);
  service_.endless = true;
  Send(slow, Generate(1, "abc"));
  ASSERT_TRUE(testing::TurnUntil(
      loop_, [&] { return service_.started.load() == 1 && (*server)->open_calls() == 0; }));
  EXPECT_EQ(service_.cancelled.load(), 1);
  std::string text;
  v1::Response response = Next(slow);
  for (; !response.final(); response = Next(slow)) text += response.chunk().text();
  EXPECT_EQ(response.call_id(), 1U);
  EXPECT_EQ(response.error().code(), "resource_exhausted");
  EXPECT_GE(text.size(), 8U);
  EXPECT_LE(text.size(), 64U);
  for (size_t i = 0; i < text.size(); ++i) EXPECT_EQ(text[i], "abc"[i % 3]) << i;
  service_.endless = false;
  Send(slow, Generate(2, "x"));
  EXPECT_EQ(Next(slow).chunk().text(), "x");
}

TEST_F(RpcServerTest, WhileItDrainsOpenCallsEndAndNewOnesAreRefused) {
  Send(dealer_, Generate(1, std::string(50, 'x')));
  EXPECT_EQ(Next(dealer_).chunk().text(), "x");
  bool drained = false;
  server_->Drain([&] { drained = true; });
  Send(dealer_, Generate(2, "y"));
  v1::Request health;
  health.set_version(1);
  health.set_call_id(3);
  health.mutable_health();
  Send(dealer_, health.SerializeAsString());
  std::string text = "x";
  for (int finals = 0; finals < 3;) {
    const v1::Response response = Next(dealer_);
    finals += response.final() ? 1 : 0;
    text += response.chunk().text();
    if (response.call_id() == 2) {
      EXPECT_EQ(response.error().code(), "unavailable");
      EXPECT_NE(response.error().message().find("draining"), std::string::npos);
    }
    if (response.call_id() == 3) {
      EXPECT_FALSE(response.health().ready());
    }
  }
  EXPECT_EQ(text, std::string(50, 'x'));
  EXPECT_TRUE(testing::TurnUntil(loop_, [&] { return drained; }));
}

TEST_F(RpcServerTest, CancelsWhatIsOpenWhenItEnds) {
  service_.endless = true;
  Send(dealer_, Generate(1, "x"));
  EXPECT_EQ(Next(dealer_).chunk().text(), "x");
  server_.reset();
  EXPECT_EQ(service_.cancelled.load(), 1);
}

}  // namespace
}  // namespace muselet
