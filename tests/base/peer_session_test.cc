#include "base/peer_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr PeerTiming kTiming{.heartbeat_interval_us = 100, .timeout_us = 1000};

Hello HelloOf(const std::string& name, Role role = Role::kGateway) {
  Hello hello;
  hello.role = role;
  hello.name = name;
  return hello;
}

Envelope From(uint64_t instance, Message body) {
  return {"peer", instance, 0, std::move(body)};
}

std::string Names(const std::vector<Message>& messages) {
  std::string text;
  for (const Message& message : messages) text += std::string(MessageName(message)) + ";";
  return text;
}

// "joined;" and "lost: why;" in order.
std::string Told(const ClientSession::Step& step) {
  std::string text;
  for (const ClientSession::Event& event : step.events) {
    const bool joined = event.kind == ClientSession::Event::Kind::kJoined;
    text += joined ? "joined;" : "lost: " + event.reason + ";";
  }
  return text;
}

TEST(ClientSessionTest, RepeatsHelloUntilWelcomeThenSendsHeartbeats) {
  ClientSession session(HelloOf("g"), kTiming);
  EXPECT_EQ(Names(session.OnTick(1000).send), "hello;");
  EXPECT_EQ(Names(session.OnTick(1050).send), "");
  EXPECT_EQ(Names(session.OnTick(1100).send), "hello;");
  EXPECT_FALSE(session.joined());
  EXPECT_EQ(Told(session.OnEnvelope(From(7, Welcome{"s0"}), 1110)), "joined;");
  EXPECT_TRUE(session.joined());
  EXPECT_EQ(session.peer_name(), "s0");
  EXPECT_EQ(Names(session.OnTick(1210).send), "heartbeat;");
  EXPECT_EQ(Told(session.OnEnvelope(From(7, Welcome{"s0"}), 1220)), "");
}

TEST(ClientSessionTest, OwnerMayBeItsOwnSignOfLife) {
  ClientSession session(HelloOf("n"), kTiming, false);
  session.OnTick(1000);
  session.OnEnvelope(From(7, Welcome{"s0"}), 1010);
  EXPECT_EQ(Names(session.OnTick(1200).send), "");
}

TEST(ClientSessionTest, UnknownIsALossAndAnsweredByOneHello) {
  ClientSession session(HelloOf("g"), kTiming);
  session.OnTick(1000);
  session.OnEnvelope(From(7, Welcome{"s0"}), 1010);
  const auto step = session.OnEnvelope(From(7, Unknown{}), 1020);
  EXPECT_EQ(Told(step), "lost: it does not know us any more;");
  EXPECT_EQ(Names(step.send), "hello;");
  EXPECT_EQ(Names(session.OnEnvelope(From(7, Unknown{}), 1021).send), "");
  EXPECT_EQ(Told(session.OnEnvelope(From(7, Welcome{"s0"}), 1030)), "joined;");
}

TEST(ClientSessionTest, NewInstanceIsANewPeerAndTheOldOnesLateMessagesAreIgnored) {
  ClientSession session(HelloOf("g"), kTiming);
  session.OnTick(1000);
  session.OnEnvelope(From(7, Welcome{"s0"}), 1010);
  const auto step = session.OnEnvelope(From(8, Unknown{}), 1020);
  EXPECT_EQ(Told(step), "lost: it restarted;");
  EXPECT_EQ(Names(step.send), "hello;");
  EXPECT_EQ(Told(session.OnEnvelope(From(7, Welcome{"s0"}), 1025)), "");
  EXPECT_EQ(Told(session.OnEnvelope(From(8, Welcome{"s1"}), 1030)), "joined;");
  EXPECT_EQ(session.peer_name(), "s1");
  EXPECT_EQ(Told(session.OnEnvelope(From(7, Goodbye{}), 1040)), "");
  EXPECT_EQ(Told(session.OnEnvelope(From(9, Welcome{"s2"}), 1050)), "lost: it restarted;joined;")
      << "a Hello that went to the old one may be answered by the new one";
}

TEST(ClientSessionTest, ALateWordOfTheProcessBeforeDoesNotShutOutThePresentOneForGood) {
  ClientSession session(HelloOf("g"), kTiming);
  session.OnTick(1000);
  session.OnEnvelope(From(8, Welcome{"s0"}), 1010);
  EXPECT_EQ(Told(session.OnEnvelope(From(7, Heartbeat{}), 1020)), "lost: it restarted;");
  EXPECT_EQ(Told(session.OnEnvelope(From(8, Welcome{"s0"}), 1030)), "") << "it may be the late one";
  session.OnTick(1550);
  EXPECT_EQ(Told(session.OnEnvelope(From(8, Welcome{"s0"}), 1560)), "joined;");
  EXPECT_TRUE(session.OnEnvelope(From(8, Ticket{}), 1570).known);
}

TEST(ClientSessionTest, OnlyTheJoinedProcessIsListenedTo) {
  ClientSession session(HelloOf("g"), kTiming);
  session.OnTick(1000);
  EXPECT_FALSE(session.OnEnvelope(From(7, Ticket{}), 1005).known);
  session.OnEnvelope(From(7, Welcome{"s0"}), 1010);
  EXPECT_TRUE(session.OnEnvelope(From(7, Ticket{}), 1020).known);
  EXPECT_FALSE(session.OnEnvelope(From(8, Ticket{}), 1030).known);
  session.OnEnvelope(From(8, Welcome{"s0"}), 1040);
  EXPECT_FALSE(session.OnEnvelope(From(7, Ticket{}), 1050).known);
  EXPECT_TRUE(session.OnEnvelope(From(8, Ticket{}), 1060).known);
  session.OnUnreachable();
  EXPECT_FALSE(session.OnEnvelope(From(8, Ticket{}), 1070).known);
}

TEST(ClientSessionTest, SilenceAndGoodbyeAreLosses) {
  ClientSession session(HelloOf("g"), kTiming);
  session.OnTick(1000);
  session.OnEnvelope(From(7, Welcome{"s0"}), 1000);
  for (int64_t now = 1100; now <= 2000; now += 100) EXPECT_EQ(Told(session.OnTick(now)), "") << now;
  const auto lost = session.OnTick(2100);
  EXPECT_EQ(Told(lost), "lost: it is silent;");
  EXPECT_EQ(Names(lost.send), "hello;");
  EXPECT_EQ(Told(session.OnTick(2200)), "");
  ASSERT_EQ(lost.events.size(), 1U);
  EXPECT_FALSE(lost.events[0].on_purpose);
  session.OnEnvelope(From(7, Welcome{"s0"}), 2210);
  const auto left = session.OnEnvelope(From(7, Goodbye{"stop"}), 2220);
  EXPECT_EQ(Told(left), "lost: it said goodbye: stop;");
  ASSERT_EQ(left.events.size(), 1U);
  EXPECT_TRUE(left.events[0].on_purpose);
  EXPECT_EQ(Told(session.OnEnvelope(From(7, Goodbye{"stop"}), 2230)), "");
}

// A timeout of two heartbeats is allowed: ticks at the heartbeat's pace, each a little late, would
// pass for an owner that is stuck, and silence would never be noticed.
TEST(ClientSessionTest, SilenceIsNoticedWithTheShortestTimeoutThatTheConfigAllows) {
  constexpr PeerTiming kTight{.heartbeat_interval_us = 500, .timeout_us = 1000};
  ClientSession session(HelloOf("g"), kTight);
  session.OnTick(1000);
  session.OnEnvelope(From(7, Welcome{"s0"}), 1000);
  std::string told;
  const int64_t late_us = 10;
  for (int64_t now = 1000; now < 4000; now += TickIntervalUs(kTight) + late_us)
    told += Told(session.OnTick(now));
  EXPECT_EQ(told, "lost: it is silent;");
}

TEST(ClientSessionTest, QuietPeerIsAskedByAHello) {
  for (const bool sends_heartbeats : {true, false}) {
    ClientSession session(HelloOf("g"), kTiming, sends_heartbeats);
    session.OnTick(1000);
    session.OnEnvelope(From(7, Welcome{"s0"}), 1000);
    const std::string sign_of_life = sends_heartbeats ? "heartbeat;" : "";
    EXPECT_EQ(Names(session.OnTick(1100).send), sign_of_life);
    EXPECT_EQ(Names(session.OnTick(1250).send), sign_of_life);
    EXPECT_EQ(Names(session.OnTick(1350).send), "hello;");
    EXPECT_TRUE(session.joined());
    session.OnEnvelope(From(7, Welcome{"s0"}), 1360);
    EXPECT_EQ(Names(session.OnTick(1450).send), sign_of_life);
  }
}

TEST(ClientSessionTest, UnreachablePeerIsLostAtOnceAndGreetedAtTheNextTick) {
  ClientSession session(HelloOf("g"), kTiming);
  EXPECT_EQ(Names(session.OnTick(1000).send), "hello;");
  EXPECT_EQ(Told(session.OnUnreachable()), "") << "it was not there before";
  EXPECT_EQ(Names(session.OnTick(1001).send), "hello;") << "the first did not get through";
  session.OnEnvelope(From(7, Welcome{"s0"}), 1010);
  EXPECT_EQ(Told(session.OnUnreachable()), "lost: the connection broke;");
  EXPECT_FALSE(session.joined());
  EXPECT_EQ(Names(session.OnTick(1020).send), "hello;");
  EXPECT_EQ(Told(session.OnEnvelope(From(7, Welcome{"s0"}), 1030)), "joined;");
}

TEST(ClientSessionTest, ItsOwnStallIsNoLoss) {
  ClientSession session(HelloOf("g"), kTiming);
  session.OnTick(1000);
  session.OnEnvelope(From(7, Welcome{"s0"}), 1000);
  EXPECT_EQ(Told(session.OnTick(50'000)), "");
}

using Kind = PeerTable::Event::Kind;

std::vector<Kind> Kinds(const PeerTable::Step& step) {
  std::vector<Kind> kinds;
  for (const PeerTable::Event& event : step.events) kinds.push_back(event.kind);
  return kinds;
}
std::string Sent(const PeerTable::Step& step) {
  std::string text;
  for (const Outgoing& outgoing : step.send)
    text += outgoing.peer + "<-" + std::string(MessageName(outgoing.message)) + ";";
  return text;
}

TEST(PeerTableTest, HelloIsWelcomedAndStrangersAreToldUnknown) {
  PeerTable table("s0", kTiming);
  const auto stranger = table.OnEnvelope("g#1", From(1, Heartbeat{}), 0);
  EXPECT_EQ(Sent(stranger), "g#1<-unknown;");
  EXPECT_FALSE(stranger.known);
  const auto joined = table.OnEnvelope("g#1", From(1, HelloOf("g")), 0);
  EXPECT_EQ(Sent(joined), "g#1<-welcome;");
  EXPECT_THAT(Kinds(joined), ElementsAre(Kind::kJoined));
  EXPECT_TRUE(table.OnEnvelope("g#1", From(1, Heartbeat{}), 0).known);
  EXPECT_THAT(Kinds(table.OnEnvelope("g#1", From(1, HelloOf("g")), 0)),
              ElementsAre(Kind::kUpdated));
}

TEST(PeerTableTest, NewInstanceOfANameReplacesTheOldOneForGood) {
  PeerTable table("s0", kTiming);
  table.OnEnvelope("g#1", From(1, HelloOf("g")), 0);
  EXPECT_THAT(Kinds(table.OnEnvelope("g#2", From(2, HelloOf("g")), 0)),
              ElementsAre(Kind::kLost, Kind::kJoined));
  const auto old = table.OnEnvelope("g#1", From(1, HelloOf("g")), 0);
  EXPECT_EQ(Sent(old), "g#1<-goodbye;");
  EXPECT_THAT(Kinds(old), IsEmpty());
  ASSERT_NE(table.FindName(Role::kGateway, "g"), nullptr);
  EXPECT_EQ(table.FindName(Role::kGateway, "g")->instance, 2U);
  table.OnEnvelope("g#2", From(2, Goodbye{}), 0);
  EXPECT_THAT(Kinds(table.OnEnvelope("g#1", From(1, HelloOf("g")), 0)), ElementsAre(Kind::kJoined))
      << "it may come back when the newer one has gone";
}

TEST(PeerTableTest, SameNameInAnotherRoleIsAnotherPeer) {
  PeerTable table("s0", kTiming);
  table.OnEnvelope("a", From(1, HelloOf("x", Role::kGateway)), 0);
  table.OnEnvelope("b", From(1, HelloOf("x", Role::kNode)), 0);
  EXPECT_EQ(table.peers().size(), 2U);
}

TEST(PeerTableTest, SilentPeersAreLostAndOthersGetHeartbeats) {
  PeerTable table("s0", kTiming);
  table.OnTick(0);
  table.OnEnvelope("a", From(1, HelloOf("a")), 0);
  table.OnEnvelope("b", From(1, HelloOf("b")), 0);
  for (int64_t now = 100; now <= 1000; now += 100) {
    table.OnEnvelope("b", From(1, Heartbeat{}), now);
    EXPECT_EQ(Sent(table.OnTick(now)), "a<-heartbeat;b<-heartbeat;");
  }
  const auto step = table.OnTick(1100);
  EXPECT_THAT(Kinds(step), ElementsAre(Kind::kLost));
  EXPECT_EQ(step.events[0].peer.id, "a");
  EXPECT_EQ(Sent(step), "b<-heartbeat;");
}

TEST(PeerTableTest, ItsOwnStallIsNobodysLoss) {
  PeerTable table("s0", kTiming);
  table.OnTick(0);
  table.OnEnvelope("a", From(1, HelloOf("a")), 0);
  EXPECT_THAT(Kinds(table.OnTick(5000)), IsEmpty());
  for (int64_t now = 5100; now <= 6000; now += 100)
    EXPECT_THAT(Kinds(table.OnTick(now)), IsEmpty());
  EXPECT_THAT(Kinds(table.OnTick(6100)), ElementsAre(Kind::kLost));
}

TEST(PeerTableTest, AnotherProtocolAndOneTooManyAreTurnedAway) {
  PeerTable table("s0", kTiming, 1);
  Hello foreign = HelloOf("old");
  foreign.protocol_version = kProtocolVersion + 1;
  EXPECT_EQ(Sent(table.OnEnvelope("old", From(1, foreign), 0)), "old<-goodbye;");
  table.OnEnvelope("a", From(1, HelloOf("a")), 0);
  EXPECT_EQ(Sent(table.OnEnvelope("b", From(1, HelloOf("b")), 0)), "b<-goodbye;");
  EXPECT_EQ(table.peers().size(), 1U);
}

TEST(PeerTableTest, UnreachablePeerIsLost) {
  PeerTable table("s0", kTiming);
  table.OnEnvelope("a", From(1, HelloOf("a")), 0);
  EXPECT_THAT(Kinds(table.OnUnreachable("a", 1)), ElementsAre(Kind::kLost));
  EXPECT_THAT(Kinds(table.OnUnreachable("a", 1)), IsEmpty());
}

}  // namespace
}  // namespace muselet
