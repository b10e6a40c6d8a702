#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <zmq.hpp>

#include "comms/event_loop.h"
#include "comms/key_guard.h"
#include "comms/message_socket.h"
#include "comms/raw_router.h"
#include "comms/wire_endpoint.h"
#include "comms/wire_keys.h"

namespace muselet {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(20);
// Off loopback by its text, and yet reached from this machine alone in the test.
constexpr const char* kEverywhere = "tcp://0.0.0.0:0";

WireKeyPair NewPair() {
  Result<WireKeyPair> pair = NewWireKeyPair();
  EXPECT_TRUE(pair.ok()) << pair.status().message();
  return pair.ok() ? *pair : WireKeyPair();
}

// A peer of its own: a context as another process has it.
struct Peer {
  explicit Peer(const WireKeyPair& own, std::vector<std::string> members = {},
                std::vector<std::string> front_ends = {}) {
    const Status secured = context.Secure({own, std::move(members), std::move(front_ends)});
    EXPECT_TRUE(secured.ok()) << secured.message();
  }
  Peer() = default;
  WireContext context;
};

class WireSecurityTest : public ::testing::Test {
 protected:
  bool RunUntil(const std::function<bool()>& done, std::chrono::seconds patience = kPatience) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      loop_.io().run_one_for(milliseconds(20));
    }
    return true;
  }

  Peer& NewPeer(const WireKeyPair& own, std::vector<std::string> members = {},
                std::vector<std::string> front_ends = {}) {
    peers_.push_back(std::make_unique<Peer>(own, std::move(members), std::move(front_ends)));
    return *peers_.back();
  }
  Peer& PlainPeer() { return *peers_.emplace_back(std::make_unique<Peer>()); }

  std::unique_ptr<MessageServer> BindEcho(Peer& peer, const std::string& endpoint) {
    auto server =
        MessageServer::Bind(loop_, peer.context, {"server", 1}, endpoint,
                            [this](const std::string& from, Envelope envelope) {
                              ++served_;
                              static_cast<void>(server_->Send(from, std::move(envelope.body)));
                            });
    EXPECT_TRUE(server.ok()) << server.status().message();
    return server.ok() ? *std::move(server) : nullptr;
  }
  std::unique_ptr<MessageClient> Connect(Peer& peer, const std::string& endpoint) {
    auto client = MessageClient::Connect(loop_, peer.context, {"client", ++instance_}, endpoint,
                                         [this](Envelope) { ++answers_; });
    EXPECT_TRUE(client.ok()) << client.status().message();
    return client.ok() ? *std::move(client) : nullptr;
  }
  // True when an answer came back.
  bool Asks(MessageClient& client) {
    const int before = answers_;
    if (!RunUntil([&] { return client.Send(Goodbye{}).ok(); })) return false;
    return RunUntil([&] { return answers_ > before; });
  }
  // Lets `peer` try until the server has refused one more.
  bool IsRefused(Peer& server, Peer& peer, const std::string& endpoint) {
    const uint64_t before = server.context.refused();
    const int served = served_;
    auto client = Connect(peer, endpoint);
    const bool refused = RunUntil([&] {
      EXPECT_FALSE(client->Send(Goodbye{}).ok());
      return server.context.refused() > before;
    });
    return refused && served_ == served;
  }

  EventLoop loop_{"test"};
  std::vector<std::unique_ptr<Peer>> peers_;  // outlive the sockets
  std::unique_ptr<MessageServer> server_;
  int served_ = 0;
  int answers_ = 0;
  uint64_t instance_ = 10;
};

TEST_F(WireSecurityTest, OneKeyForAllIsEnough) {
  const WireKeyPair cluster = NewPair();
  Peer& serving = NewPeer(cluster);
  Peer& asking = NewPeer(cluster);
  server_ = BindEcho(serving, kEverywhere);
  // The key travels with the endpoint, but whoever has the same key needs no telling.
  EXPECT_EQ(ParseWireEndpoint(server_->endpoint()).server_key, cluster.public_key);
  EXPECT_TRUE(Asks(*Connect(asking, server_->endpoint())));
  EXPECT_TRUE(Asks(*Connect(asking, ParseWireEndpoint(server_->endpoint()).address)));
  EXPECT_EQ(serving.context.refused(), 0U);
}

TEST_F(WireSecurityTest, AKnownKeyPassesAnUnknownOneIsRefusedAndTheServiceGoesOn) {
  const WireKeyPair known = NewPair();
  Peer& serving = NewPeer(NewPair(), {known.public_key});
  Peer& member = NewPeer(known);
  Peer& stranger = NewPeer(NewPair());
  server_ = BindEcho(serving, kEverywhere);
  auto client = Connect(member, server_->endpoint());
  ASSERT_TRUE(Asks(*client));
  EXPECT_TRUE(IsRefused(serving, stranger, server_->endpoint()));
  EXPECT_TRUE(Asks(*client));
  EXPECT_TRUE(Asks(*Connect(member, server_->endpoint())));
}

TEST_F(WireSecurityTest, AServerWithAnotherKeyThanExpectedGetsNothing) {
  const WireKeyPair own = NewPair();
  Peer& serving = NewPeer(NewPair(), {own.public_key});
  Peer& asking = NewPeer(own);
  server_ = BindEcho(serving, kEverywhere);
  const std::string address = ParseWireEndpoint(server_->endpoint()).address;
  auto deceived = Connect(asking, WithServerKey(address, NewPair().public_key));
  auto client = Connect(asking, server_->endpoint());
  ASSERT_TRUE(Asks(*client));
  EXPECT_EQ(deceived->Send(Goodbye{}).code(), StatusCode::kUnavailable);
  EXPECT_EQ(served_, 1);
}

// A socket without keys, and bytes that are no ZeroMQ at all: neither gets in, neither does harm.
TEST_F(WireSecurityTest, APlainPeerAndGarbageDoNoHarm) {
  const WireKeyPair cluster = NewPair();
  Peer& serving = NewPeer(cluster);
  Peer& member = NewPeer(cluster);
  Peer& plain = PlainPeer();
  server_ = BindEcho(serving, kEverywhere);
  const std::string address = ParseWireEndpoint(server_->endpoint()).address;
  auto outsider = Connect(plain, address);
  boost::asio::io_context io;
  boost::asio::ip::tcp::socket scan(io);
  const uint16_t port = static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
  scan.connect({boost::asio::ip::address_v4::loopback(), port});
  const std::string garbage(4096, '\x7f');
  boost::asio::write(scan, boost::asio::buffer(garbage));
  auto client = Connect(member, address);
  ASSERT_TRUE(Asks(*client));
  EXPECT_EQ(outsider->Send(Goodbye{}).code(), StatusCode::kUnavailable);
  EXPECT_EQ(served_, 1);
  EXPECT_TRUE(Asks(*client));
}

TEST_F(WireSecurityTest, ASecuredClientDoesNotSpeakToAPlainServer) {
  const WireKeyPair cluster = NewPair();
  Peer& plain = PlainPeer();
  Peer& secured = NewPeer(cluster);
  server_ = BindEcho(plain, kEverywhere);
  EXPECT_EQ(ParseWireEndpoint(server_->endpoint()).server_key, "");
  auto wrong = Connect(secured, server_->endpoint());
  Peer& other = PlainPeer();
  ASSERT_TRUE(Asks(*Connect(other, server_->endpoint())));
  EXPECT_EQ(wrong->Send(Goodbye{}).code(), StatusCode::kUnavailable);
}

TEST_F(WireSecurityTest, LoopbackStaysPlain) {
  Peer& secured = NewPeer(NewPair());
  Peer& plain = PlainPeer();
  server_ = BindEcho(secured, "tcp://127.0.0.1:0");
  EXPECT_EQ(ParseWireEndpoint(server_->endpoint()).server_key, "");
  EXPECT_TRUE(Asks(*Connect(plain, server_->endpoint())));
  EXPECT_TRUE(Asks(*Connect(secured, server_->endpoint())));
}

TEST_F(WireSecurityTest, AProcessWithoutAKeyCannotConnectWhereOneIsWanted) {
  Peer& plain = PlainPeer();
  const auto client = MessageClient::Connect(
      loop_, plain.context, {"c", 1}, WithServerKey("tcp://10.0.0.1:5555", NewPair().public_key),
      [](Envelope) {});
  ASSERT_FALSE(client.ok());
  EXPECT_THAT(client.status().message(), HasSubstr("security.key_file"));
}

TEST_F(WireSecurityTest, FrontEndsGetToTheirSocketsOnly) {
  const WireKeyPair front_end = NewPair();
  Peer& serving = NewPeer(NewPair(), {}, {front_end.public_key});
  Peer& asking = NewPeer(front_end);
  server_ = BindEcho(serving, kEverywhere);
  EXPECT_TRUE(IsRefused(serving, asking, server_->endpoint()));

  int asked = 0;
  const auto router = RawRouter::Bind(
      loop_, serving.context, kEverywhere, [&](const RawPeer&, std::string) { ++asked; }, {},
      WireAudience::kFrontEnds);
  ASSERT_TRUE(router.ok());
  const auto client = Connect(asking, (*router)->endpoint());
  ASSERT_TRUE(RunUntil([&] { return client->Send(Goodbye{}).ok(); }));
  EXPECT_TRUE(RunUntil([&] { return asked == 1; }));
}

// What the guard answers to a question of so many frames about a known key.
std::string AskGuard(Peer& peer, const WireKeyPair& known, size_t frames) {
  std::string key(32, '\0');
  zmq_z85_decode(reinterpret_cast<uint8_t*>(key.data()), known.public_key.c_str());
  const std::vector<std::string> question = {"1.0", "1",     "members", "127.0.0.1",
                                             "",    "CURVE", key,       "more"};
  zmq::socket_t socket(peer.context.zmq(), zmq::socket_type::req);
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::rcvtimeo, 20'000);
  socket.connect("inproc://zeromq.zap.01");
  for (size_t i = 0; i < frames; ++i) {
    zmq_send(socket.handle(), question[i].data(), question[i].size(),
             i + 1 < frames ? ZMQ_SNDMORE : 0);
  }
  std::vector<std::string> answer;
  zmq::message_t frame;
  do {
    if (!socket.recv(frame)) return "";
    answer.push_back(frame.to_string());
  } while (frame.more());
  return answer.size() == 6 ? answer[2] : "";
}

TEST_F(WireSecurityTest, TheGuardRefusesWhatItCannotReadAndGoesOn) {
  const WireKeyPair known = NewPair();
  Peer& serving = NewPeer(NewPair(), {known.public_key});
  EXPECT_EQ(AskGuard(serving, known, 7), "200");
  for (const size_t frames : {1U, 2U, 6U, 8U}) {
    EXPECT_EQ(AskGuard(serving, known, frames), "400") << frames;
  }
  EXPECT_EQ(AskGuard(serving, known, 7), "200");
  EXPECT_EQ(serving.context.refused(), 4U);
}

// What becomes of a connection with a key that all know, to a socket that asks a guard.
int EventOfConnecting(bool guarded) {
  const WireKeyPair own = NewPair();
  zmq::context_t context;
  std::unique_ptr<KeyGuard> guard;
  if (guarded) guard = std::make_unique<KeyGuard>(context, WireSecurity{own, {}, {}});
  zmq_event_t event = {};
  {
    zmq::socket_t server(context, zmq::socket_type::router);
    zmq::socket_t client(context, zmq::socket_type::dealer);
    zmq::socket_t monitor(context, zmq::socket_type::pair);
    for (zmq::socket_t* socket : {&server, &client, &monitor}) {
      socket->set(zmq::sockopt::linger, 0);
      socket->set(zmq::sockopt::rcvtimeo, 20'000);
    }
    KeyGuard::Protect(server, own, WireAudience::kMembers);
    zmq_socket_monitor(server.handle(), "inproc://events",
                       ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                           ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL);
    monitor.connect("inproc://events");
    server.bind("tcp://127.0.0.1:0");
    client.set(zmq::sockopt::curve_publickey, own.public_key);
    client.set(zmq::sockopt::curve_secretkey, own.secret_key);
    client.set(zmq::sockopt::curve_serverkey, own.public_key);
    client.connect(server.get(zmq::sockopt::last_endpoint));
    zmq::message_t frame;
    if (monitor.recv(frame)) std::memcpy(&event.event, frame.data(), sizeof(event.event));
    zmq_socket_monitor(server.handle(), nullptr, 0);
  }
  context.shutdown();
  return event.event;
}

TEST(KeyGuardTest, WhereThereIsNoGuardNobodyIsAdmitted) {
  EXPECT_EQ(EventOfConnecting(/*guarded=*/true), ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
  const int event = EventOfConnecting(/*guarded=*/false);
  EXPECT_NE(event, 0);
  EXPECT_NE(event, ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
}

TEST(WireEndpoint, SplitsTheKeyFromTheAddress) {
  const std::string key = "#" + std::string(39, 'a');
  const WireEndpoint both = ParseWireEndpoint("tcp://[::1]:5#" + key);
  EXPECT_EQ(both.address, "tcp://[::1]:5");
  EXPECT_EQ(both.server_key, key);
  EXPECT_EQ(ParseWireEndpoint("inproc://a#b").address, "inproc://a#b");
  for (const char* local :
       {"tcp://127.0.0.1:*", "tcp://localhost:1", "tcp://[::1]:0", "inproc://x", "ipc:///tmp/x"}) {
    EXPECT_TRUE(IsLoopbackEndpoint(local)) << local;
  }
  for (const char* outside : {"tcp://0.0.0.0:1", "tcp://*:1", "tcp://10.0.0.1:*", "tcp://h:1"}) {
    EXPECT_FALSE(IsLoopbackEndpoint(outside)) << outside;
  }
}

class WireKeysTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(::testing::TempDir()) / ("muselet_keys_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string At(const char* name) const { return (folder_ / name).string(); }
  void Write(const char* name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    chmod(At(name).c_str(), 0600);
  }
  std::filesystem::path folder_;
};

TEST_F(WireKeysTest, WritesAPairThatReadsBackAndIsForItsOwnerOnly) {
  const Result<std::string> key = WriteWireKeyFiles(At("n0"));
  ASSERT_TRUE(key.ok()) << key.status().message();
  EXPECT_TRUE(IsWireKey(*key));
  struct stat info {};
  ASSERT_EQ(stat(At("n0.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  const Result<WireKeyPair> pair = ReadSecretKeyFile(At("n0.key"));
  ASSERT_TRUE(pair.ok()) << pair.status().message();
  EXPECT_EQ(pair->public_key, *key);
  const auto known = ReadPublicKeysFile(At("n0.pub"));
  ASSERT_TRUE(known.ok()) << known.status().message();
  EXPECT_THAT(*known, ::testing::ElementsAre(*key));
}

TEST_F(WireKeysTest, NeverWritesOverAFile) {
  Write("a.key", "mine");
  EXPECT_THAT(WriteWireKeyFiles(At("a")).status().message(), HasSubstr("never overwritten"));
  EXPECT_FALSE(std::filesystem::exists(At("a.pub")));
  Write("b.pub", "mine");
  EXPECT_FALSE(WriteWireKeyFiles(At("b")).ok());
  EXPECT_FALSE(std::filesystem::exists(At("b.key")));
  EXPECT_FALSE(WriteWireKeyFiles(At("no/such/x")).ok());
  EXPECT_FALSE(WriteWireKeyFiles(folder_.string() + "/").ok());
}

TEST_F(WireKeysTest, RefusesFilesThatDoNotHoldWhatTheyShould) {
  ASSERT_TRUE(WriteWireKeyFiles(At("n")).ok());
  EXPECT_THAT(ReadSecretKeyFile(At("n.pub")).status().message(), HasSubstr("chmod 600"));
  chmod(At("n.pub").c_str(), 0600);
  EXPECT_THAT(ReadSecretKeyFile(At("n.pub")).status().message(), HasSubstr("a public key"));
  EXPECT_THAT(ReadPublicKeysFile(At("n.key")).status().message(), HasSubstr("a secret key"));
  Write("bad", "\nmuselet-public-key tooshort\n");
  const std::string fault = ReadPublicKeysFile(At("bad")).status().message();
  EXPECT_THAT(fault, HasSubstr("bad:2: no key"));
  EXPECT_THAT(fault, ::testing::Not(HasSubstr("tooshort")));
  Write("none", "# nobody\n\n");
  EXPECT_FALSE(ReadPublicKeysFile(At("none")).ok());
  EXPECT_FALSE(ReadSecretKeyFile(At("none")).ok());
  EXPECT_FALSE(ReadSecretKeyFile(At("absent")).ok());
}

TEST_F(WireKeysTest, KeysMayBeginAsCommentsDo) {
  const std::string key = "#" + std::string(39, '0');
  Write("known", "# the front ends\n" + key + "\nmuselet-public-key " + key + " chat\n");
  const auto known = ReadPublicKeysFile(At("known"));
  ASSERT_TRUE(known.ok()) << known.status().message();
  EXPECT_THAT(*known, ::testing::ElementsAre(key, key));
}

}  // namespace
}  // namespace muselet
