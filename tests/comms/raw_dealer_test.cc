#include "comms/raw_dealer.h"

#include <gtest/gtest.h>

#include <chrono>

#include "comms/raw_router.h"

namespace muselet {
namespace {

class RawDealerTest : public ::testing::Test {
 protected:
  bool RunUntil(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      loop_.io().run_one_for(std::chrono::milliseconds(50));
    }
    return true;
  }
  void Bind(const std::string& endpoint) {
    auto router =
        RawRouter::Bind(loop_, context_, endpoint, [this](const RawPeer& peer, std::string body) {
          peers_.push_back(peer.id);
          EXPECT_TRUE(router_->Send(peer, "re: " + body).ok());
        });
    ASSERT_TRUE(router.ok()) << router.status().ToString();
    router_ = *std::move(router);
    router_->OnDisconnect([this] { ++disconnects_; });
  }
  void Connect(const std::string& endpoint, const WireLimits& limits = {}) {
    auto dealer = RawDealer::Connect(
        loop_, context_, endpoint, RawDealer::DrawIdentity("rank-1"),
        [this](std::string body) { received_.push_back(std::move(body)); }, limits);
    ASSERT_TRUE(dealer.ok()) << dealer.status().ToString();
    dealer_ = *std::move(dealer);
    dealer_->OnConnection([this](bool connected) { connections_.push_back(connected); });
  }

  WireContext context_;
  EventLoop loop_{"test"};
  std::unique_ptr<RawRouter> router_;
  std::unique_ptr<RawDealer> dealer_;
  std::vector<std::string> peers_;
  std::vector<std::string> received_;
  std::vector<bool> connections_;
  int disconnects_ = 0;
};

TEST_F(RawDealerTest, ConnectsAgainToARouterThatComesBackAndTellsOfIt) {
  Bind("tcp://127.0.0.1:0");
  const std::string endpoint = router_->endpoint();
  Connect(endpoint);
  ASSERT_TRUE(RunUntil([&] { return dealer_->Send("one").ok(); }));
  ASSERT_TRUE(RunUntil([&] { return received_.size() == 1; }));
  EXPECT_EQ(received_[0], "re: one");
  ASSERT_TRUE(RunUntil([&] { return connections_.size() == 1; }));

  router_.reset();
  ASSERT_TRUE(RunUntil([&] { return connections_.size() == 2; }));
  EXPECT_EQ(dealer_->Send("lost").code(), StatusCode::kUnavailable);
  Bind(endpoint);
  ASSERT_TRUE(RunUntil([&] { return connections_.size() == 3; }));
  EXPECT_EQ(connections_, (std::vector<bool>{true, false, true}));
  ASSERT_TRUE(RunUntil([&] { return dealer_->Send("two").ok(); }));
  ASSERT_TRUE(RunUntil([&] { return received_.size() == 2; }));
  EXPECT_EQ(peers_[0], peers_[1]);  // the same identity
}

TEST_F(RawDealerTest, TellsTheRouterWhenItGoes) {
  Bind("tcp://127.0.0.1:0");
  Connect(router_->endpoint());
  ASSERT_TRUE(RunUntil([&] { return dealer_->Send("one").ok(); }));
  ASSERT_TRUE(RunUntil([&] { return received_.size() == 1; }));
  dealer_.reset();
  ASSERT_TRUE(RunUntil([&] { return disconnects_ == 1; }));
  // The notice may come a moment before ZeroMQ has forgotten the peer.
  EXPECT_TRUE(
      RunUntil([&] { return router_->Send({peers_[0]}, "?").code() == StatusCode::kUnavailable; }));
}

TEST_F(RawDealerTest, RefusesBadAddressesAndMessagesThatAreTooLarge) {
  const auto bad = RawDealer::Connect(loop_, context_, "10.0.0.1:5555",
                                      RawDealer::DrawIdentity("rank-1"), [](std::string) {});
  EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
  WireLimits limits;
  limits.message_bytes_max = 8;
  Bind("tcp://127.0.0.1:0");
  Connect(router_->endpoint(), limits);
  EXPECT_EQ(dealer_->Send("nine byte").code(), StatusCode::kInvalidArgument);
  EXPECT_NE(RawDealer::DrawIdentity("a"), RawDealer::DrawIdentity("a"));
}

}  // namespace
}  // namespace muselet
