#include "comms/message_socket.h"

#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace muselet {
namespace {

using std::chrono::milliseconds;

constexpr auto kPatience = std::chrono::seconds(20);

// One loop, run by the test's own thread until what it waits for is true.
class MessageSocketTest : public ::testing::Test {
 protected:
  bool RunUntil(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      loop_.io().run_one_for(milliseconds(50));
    }
    return true;
  }

  std::unique_ptr<MessageServer> Bind(const std::string& endpoint, MessageServer::Handler handler,
                                      const WireLimits& limits = {}) {
    auto server = MessageServer::Bind(loop_, context_, {"server", ++instance_}, endpoint,
                                      std::move(handler), limits);
    EXPECT_TRUE(server.ok()) << server.status().ToString();
    return server.ok() ? *std::move(server) : nullptr;
  }

  std::unique_ptr<MessageServer> BindEcho(const std::string& endpoint) {
    return Bind(endpoint, [this](const std::string& peer, Envelope envelope) {
      last_peer_ = peer;
      last_sender_ = envelope.sender;
      ++server_received_;
      EXPECT_TRUE(server_->Send(peer, std::move(envelope.body)).ok());
    });
  }

  std::unique_ptr<MessageClient> Connect(const std::string& endpoint,
                                         const std::string& name = "client",
                                         const WireLimits& limits = {}) {
    auto client = MessageClient::Connect(
        loop_, context_, {name, ++instance_}, endpoint,
        [this](Envelope envelope) { received_.push_back(std::move(envelope)); }, limits);
    EXPECT_TRUE(client.ok()) << client.status().ToString();
    return client.ok() ? *std::move(client) : nullptr;
  }

  // Sends until the connection takes it.
  bool SendSoon(MessageClient& client, const Message& message) {
    return RunUntil([&] { return client.Send(message).ok(); });
  }

  void ExpectEcho(const std::string& endpoint) {
    server_ = BindEcho(endpoint);
    ASSERT_NE(server_, nullptr);
    client_ = Connect(server_->endpoint());
    ASSERT_TRUE(SendSoon(*client_, Goodbye{"one"}));
    ASSERT_TRUE(client_->Send(Goodbye{"two"}).ok());
    ASSERT_TRUE(RunUntil([&] { return received_.size() == 2; }));
    EXPECT_EQ(std::get<Goodbye>(received_[0].body).reason, "one");
    EXPECT_EQ(std::get<Goodbye>(received_[1].body).reason, "two");
    EXPECT_EQ(received_[0].sender, "server");
    EXPECT_EQ(last_sender_, "client");
  }

  WireContext context_;
  EventLoop loop_{"test"};
  uint64_t instance_ = 0;
  std::vector<Envelope> received_;
  std::string last_peer_;
  std::string last_sender_;
  int server_received_ = 0;
  std::unique_ptr<MessageServer> server_;
  std::unique_ptr<MessageClient> client_;
};

TEST_F(MessageSocketTest, EchoesOverInproc) {
  ExpectEcho("inproc://echo");
}

TEST_F(MessageSocketTest, EchoesOverTcpOnAPortThatTheSystemChose) {
  ExpectEcho("tcp://127.0.0.1:0");
  EXPECT_FALSE(server_->endpoint().ends_with(":0"));
  EXPECT_TRUE(server_->endpoint().starts_with("tcp://127.0.0.1:"));
}

TEST_F(MessageSocketTest, EchoesOverIpc) {
  const std::string path = ::testing::TempDir() + "muselet_" + RequestId::Random().ToString();
  ExpectEcho("ipc://" + path);
  std::remove(path.c_str());
}

TEST_F(MessageSocketTest, ClientMayConnectBeforeTheServerBinds) {
  client_ = Connect("inproc://late");
  ASSERT_TRUE(client_->Send(Goodbye{"early"}).ok());
  server_ = BindEcho("inproc://late");
  ASSERT_TRUE(RunUntil([&] { return received_.size() == 1; }));
  EXPECT_EQ(std::get<Goodbye>(received_[0].body).reason, "early");
}

TEST_F(MessageSocketTest, SendToAnAbsentServerSaysUnavailable) {
  client_ = Connect("tcp://127.0.0.1:1");
  EXPECT_EQ(client_->Send(Heartbeat{}).code(), StatusCode::kUnavailable);
}

TEST_F(MessageSocketTest, SendToAnUnknownPeerSaysUnavailable) {
  server_ = Bind("inproc://lonely", [](const std::string&, Envelope) {});
  EXPECT_EQ(server_->Send("nobody#1", Heartbeat{}).code(), StatusCode::kUnavailable);
}

TEST_F(MessageSocketTest, ServerSeesAClientThatGoesAway) {
  bool disconnected = false;
  ExpectEcho("tcp://127.0.0.1:0");
  server_->OnDisconnect([&] { disconnected = true; });
  client_.reset();
  ASSERT_TRUE(RunUntil([&] { return disconnected; }));
  EXPECT_TRUE(RunUntil(
      [&] { return server_->Send(last_peer_, Heartbeat{}).code() == StatusCode::kUnavailable; }));
}

TEST_F(MessageSocketTest, ClientSeesAServerThatGoesAway) {
  bool disconnected = false;
  ExpectEcho("tcp://127.0.0.1:0");
  client_->OnDisconnect([&] { disconnected = true; });
  server_.reset();
  ASSERT_TRUE(RunUntil([&] { return disconnected; }));
  // The word of it may overtake the end of the queue.
  EXPECT_TRUE(
      RunUntil([&] { return client_->Send(Heartbeat{}).code() == StatusCode::kUnavailable; }));
}

TEST_F(MessageSocketTest, ClientFindsARestartedServerAgain) {
  ExpectEcho("tcp://127.0.0.1:0");
  const std::string endpoint = server_->endpoint();
  server_.reset();
  ASSERT_TRUE(
      RunUntil([&] { return client_->Send(Heartbeat{}).code() == StatusCode::kUnavailable; }));
  // The old socket's port is free once ZeroMQ's thread has closed it.
  ASSERT_TRUE(RunUntil([&] {
    auto again = MessageServer::Bind(loop_, context_, {"server", 99}, endpoint,
                                     [this](const std::string& peer, Envelope envelope) {
                                       (void)server_->Send(peer, std::move(envelope.body));
                                     });
    if (again.ok()) server_ = *std::move(again);
    return again.ok();
  }));
  received_.clear();
  ASSERT_TRUE(SendSoon(*client_, Goodbye{"again"}));
  ASSERT_TRUE(RunUntil([&] { return !received_.empty(); }));
  EXPECT_EQ(received_[0].instance, 99U);
}

TEST_F(MessageSocketTest, RestartedClientOfTheSameNameIsANewPeer) {
  ExpectEcho("tcp://127.0.0.1:0");
  const std::string old_peer = last_peer_;
  auto second = Connect(server_->endpoint());
  ASSERT_TRUE(SendSoon(*second, Goodbye{"new"}));
  ASSERT_TRUE(RunUntil([&] { return received_.size() == 3; }));
  EXPECT_NE(last_peer_, old_peer);
}

TEST_F(MessageSocketTest, MessageOverTheLimitIsRefusedByTheSender) {
  server_ = BindEcho("tcp://127.0.0.1:0");
  client_ = Connect(server_->endpoint(), "client", {.message_bytes_max = 1000});
  EXPECT_EQ(client_->Send(Goodbye{std::string(2000, 'x')}).code(), StatusCode::kInvalidArgument);
}

TEST_F(MessageSocketTest, PeerThatSendsOverTheLimitIsCutOffAndOthersAreServed) {
  server_ = Bind(
      "tcp://127.0.0.1:0",
      [this](const std::string&, Envelope envelope) { received_.push_back(std::move(envelope)); },
      {.message_bytes_max = 1000});
  auto noisy = Connect(server_->endpoint(), "noisy");
  bool cut = false;
  server_->OnDisconnect([&] { cut = true; });
  ASSERT_TRUE(SendSoon(*noisy, Goodbye{std::string(5000, 'x')}));
  ASSERT_TRUE(RunUntil([&] { return cut; }));
  EXPECT_TRUE(received_.empty());
  client_ = Connect(server_->endpoint());
  ASSERT_TRUE(SendSoon(*client_, Goodbye{"small"}));
  ASSERT_TRUE(RunUntil([&] { return !received_.empty(); }));
  EXPECT_EQ(received_[0].sender, "client");
}

TEST_F(MessageSocketTest, OversizeMessageOverInprocNeverReachesTheHandler) {
  server_ = Bind(
      "inproc://small",
      [this](const std::string&, Envelope envelope) { received_.push_back(std::move(envelope)); },
      {.message_bytes_max = 1000});
  client_ = Connect("inproc://small");
  ASSERT_TRUE(client_->Send(Goodbye{std::string(5000, 'x')}).ok());
  ASSERT_TRUE(client_->Send(Goodbye{"small"}).ok());
  ASSERT_TRUE(RunUntil([&] { return !received_.empty(); }));
  EXPECT_EQ(std::get<Goodbye>(received_[0].body).reason, "small");
}

TEST_F(MessageSocketTest, FullQueueIsAnAnswer) {
  const WireLimits tight = {.queue_messages_max = 10};
  server_ = Bind(
      "inproc://full", [](const std::string&, Envelope) {}, tight);
  client_ = Connect("inproc://full", "client", tight);
  Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) status = client_->Send(Heartbeat{});
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(RunUntil([&] { return client_->Send(Heartbeat{}).ok(); }));
}

TEST_F(MessageSocketTest, FullQueueToAPeerThatDoesNotReadIsAnAnswer) {
  const WireLimits tight = {.queue_messages_max = 10};
  EventLoop idle("idle");
  std::string peer;
  server_ = Bind(
      "inproc://deaf", [&](const std::string& from, Envelope) { peer = from; }, tight);
  auto deaf = MessageClient::Connect(
      idle, context_, {"deaf", 7}, "inproc://deaf", [](Envelope) {}, tight);
  ASSERT_TRUE(deaf.ok());
  ASSERT_TRUE((*deaf)->Send(Heartbeat{}).ok());
  ASSERT_TRUE(RunUntil([&] { return !peer.empty(); }));
  Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) status = server_->Send(peer, Heartbeat{});
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
}

TEST_F(MessageSocketTest, TakenPortIsUnavailableAndNamed) {
  server_ = BindEcho("tcp://127.0.0.1:0");
  const auto second = MessageServer::Bind(loop_, context_, {"second", 1}, server_->endpoint(),
                                          [](const std::string&, Envelope) {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find(server_->endpoint()), std::string::npos);
}

TEST_F(MessageSocketTest, BadEndpointsAreFaults) {
  for (const std::string endpoint : {"", "127.0.0.1:80", "tcp://", "tcp://127.0.0.1:99999999",
                                     "carrier-pigeon://roof", "tcp://256.1.1.1:x"}) {
    EXPECT_FALSE(MessageServer::Bind(loop_, context_, {"s", 1}, endpoint,
                                     [](const std::string&, Envelope) {})
                     .ok())
        << endpoint;
  }
  for (const std::string endpoint : {"", "127.0.0.1:80", "tcp://", "carrier-pigeon://roof"}) {
    const auto client =
        MessageClient::Connect(loop_, context_, {"c", 1}, endpoint, [](Envelope) {});
    ASSERT_FALSE(client.ok()) << endpoint;
    EXPECT_EQ(client.status().code(), StatusCode::kInvalidArgument) << endpoint;
  }
}

TEST_F(MessageSocketTest, NoisyPeerDoesNotHoldUpTheLoop) {
  int messages_at_tick = -1;
  server_ = Bind("inproc://noisy", [&](const std::string&, Envelope) {
    if (++server_received_ == 1) {
      loop_.Post([&] { messages_at_tick = server_received_; });
    }
  });
  client_ = Connect("inproc://noisy");
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(client_->Send(Heartbeat{}).ok());
  ASSERT_TRUE(RunUntil([&] { return server_received_ == 5000; }));
  EXPECT_GE(messages_at_tick, 1);
  EXPECT_LT(messages_at_tick, 200);
}

TEST_F(MessageSocketTest, ManyMessagesBothWaysArriveInOrder) {
  ExpectEcho("tcp://127.0.0.1:0");
  received_.clear();
  for (int i = 0; i < 3000; ++i) ASSERT_TRUE(SendSoon(*client_, Goodbye{std::to_string(i)}));
  ASSERT_TRUE(RunUntil([&] { return received_.size() == 3000; }));
  for (int i = 0; i < 3000; ++i)
    ASSERT_EQ(std::get<Goodbye>(received_[i].body).reason, std::to_string(i));
}

TEST_F(MessageSocketTest, HandlerMayDestroyItsOwnSocket) {
  server_ = BindEcho("inproc://suicide");
  bool called = false;
  auto client =
      MessageClient::Connect(loop_, context_, {"c", 5}, "inproc://suicide", [&](Envelope) {
        called = true;
        client_.reset();
      });
  client_ = *std::move(client);
  ASSERT_TRUE(client_->Send(Heartbeat{}).ok());
  ASSERT_TRUE(client_->Send(Heartbeat{}).ok());
  EXPECT_TRUE(RunUntil([&] { return called && server_received_ == 2; }));
}

TEST_F(MessageSocketTest, BytesThatAreNoProtocolDoNotHarmTheServer) {
  ExpectEcho("tcp://127.0.0.1:0");
  const std::string endpoint = server_->endpoint();
  boost::asio::io_context io;
  std::vector<boost::asio::ip::tcp::socket> strangers;
  const auto port = static_cast<uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)));
  for (int i = 0; i < 20; ++i) {
    strangers.emplace_back(io);
    strangers.back().connect({boost::asio::ip::make_address("127.0.0.1"), port});
    const std::string nonsense = i % 2 == 0 ? "GET / HTTP/1.1\r\n\r\n" : std::string(4096, '\xff');
    boost::system::error_code ignored;
    strangers.back().write_some(boost::asio::buffer(nonsense), ignored);
  }
  const int before = server_received_;
  ASSERT_TRUE(SendSoon(*client_, Goodbye{"still here"}));
  EXPECT_TRUE(RunUntil([&] { return server_received_ == before + 1; }));
}

}  // namespace
}  // namespace muselet
