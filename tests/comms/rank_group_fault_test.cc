// How a rank group ends: out of step, aborted, left, too late, or by the faulty twin. Nothing waits
// past its deadline, and every fault is told by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "base/clock.h"
#include "comms/faulty_group.h"
#include "tests/comms/rank_members.h"

namespace muselet::testing {
namespace {

using ::testing::HasSubstr;

class RankFaultTest : public ::testing::TestWithParam<size_t> {
 protected:
  const RankMaker& maker() const { return RankMakers()[GetParam()]; }
  Groups Make(uint32_t size) const { return MakeMembers(maker(), size); }
};

// What each of two members got from its own call.
struct Outcome {
  Status first, second;
};

Outcome Both(const Groups& groups, const std::function<RankTicket(RankGroup&)>& first,
             const std::function<RankTicket(RankGroup&)>& second) {
  Outcome outcome;
  OnMembers(groups, [&](RankGroup& group) {
    if (group.rank() == 0) outcome.first = group.Wait(first(group), Patience());
    if (group.rank() == 1) outcome.second = group.Wait(second(group), Patience());
  });
  return outcome;
}

// Whoever sees it first says so; the other one sees the same, or that this one is gone.
void ExpectOutOfStep(const Outcome& outcome, const std::string& one, const std::string& other) {
  bool told = false;
  for (const Status& status : {outcome.first, outcome.second}) {
    ASSERT_FALSE(status.ok());
    if (status.code() == StatusCode::kUnavailable) continue;
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr("out of step"));
    EXPECT_THAT(status.message(), HasSubstr(one));
    EXPECT_THAT(status.message(), HasSubstr(other));
    told = true;
  }
  EXPECT_TRUE(told) << outcome.first.ToString() << " / " << outcome.second.ToString();
}

TEST_P(RankFaultTest, NamesTwoOperationsThatDiffer) {
  std::vector<float> values(100);
  std::vector<std::byte> data(400);
  ExpectOutOfStep(Both(
                      Make(2), [&](RankGroup& group) { return group.AllReduce(values); },
                      [&](RankGroup& group) { return group.Broadcast(data, 0); }),
                  "all_reduce of 400 bytes", "broadcast of 400 bytes");
}

TEST_P(RankFaultTest, NamesTwoSizesThatDiffer) {
  std::vector<float> values(100), others(101);
  ExpectOutOfStep(Both(
                      Make(2), [&](RankGroup& group) { return group.AllReduce(values); },
                      [&](RankGroup& group) { return group.AllReduce(others); }),
                  "all_reduce of 400 bytes", "all_reduce of 404 bytes");
}

TEST_P(RankFaultTest, NamesASendThatMetASum) {
  std::vector<float> values(100);
  std::vector<std::byte> data(8);
  const auto send_then_recv = [&](RankGroup& group) {
    group.Send(data, 0);
    return group.Recv(data, 0);
  };
  ExpectOutOfStep(
      Both(
          Make(2), [&](RankGroup& group) { return group.AllReduce(values); }, send_then_recv),
      "all_reduce of 400 bytes", "of 8 bytes");
}

TEST_P(RankFaultTest, NamesAReceiveOfAnotherSize) {
  const Groups groups = Make(2);
  std::vector<std::byte> sent(100), got(99);
  ASSERT_TRUE(groups[0]->Wait(groups[0]->Send(sent, 1), Patience()).ok());
  const Status status = groups[1]->Wait(groups[1]->Recv(got, 0), Patience());
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("send of 100 bytes"));
  EXPECT_THAT(status.message(), HasSubstr("recv of 99 bytes"));
}

TEST_P(RankFaultTest, EndsAWaitWhenAnotherThreadAborts) {
  const Groups groups = Make(2);
  std::vector<float> values(576);
  std::promise<void> called;
  auto waiting = std::async(std::launch::async, [&] {
    const RankTicket ticket = groups[0]->AllReduce(values);
    called.set_value();
    return groups[0]->Wait(ticket, Patience());
  });
  called.get_future().wait();
  const int64_t begin_us = Clock::Real().NowUs();
  groups[0]->Abort(Unavailable("rank 1 died of signal 9"));
  const Status status = waiting.get();
  EXPECT_LT(Clock::Real().NowUs() - begin_us, 10'000'000) << "not at its deadline";
  EXPECT_EQ(status, Unavailable("rank 1 died of signal 9"));
  EXPECT_EQ(groups[0]->Wait(groups[0]->AllReduce(values), Patience()), status) << "for ever";
  EXPECT_EQ(groups[0]->progress().completed, 0U);
  EXPECT_EQ(groups[0]->progress().enqueued, 2U);
}

TEST_P(RankFaultTest, AMemberThatIsAbortedIsFoundGone) {
  const Groups groups = Make(3);
  std::vector<std::byte> data(1000);
  auto waiting = std::async(std::launch::async,
                            [&] { return groups[0]->Wait(groups[0]->Recv(data, 2), Patience()); });
  groups[2]->Abort(Unavailable("told to"));
  const Status status = waiting.get();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("member 2 is gone"));
}

TEST_P(RankFaultTest, AMemberThatIsDestroyedIsFoundGoneAfterWhatItSent) {
  Groups groups = Make(2);
  const auto data = RandomBytes(1, 200'000, 1);
  ASSERT_TRUE(groups[1]->Wait(groups[1]->Send(data, 0), Patience()).ok());
  groups[1].reset();
  std::vector<std::byte> got(data.size());
  ASSERT_TRUE(groups[0]->Wait(groups[0]->Recv(got, 1), Patience()).ok());
  EXPECT_EQ(got, data);
  const Status status = groups[0]->Wait(groups[0]->Recv(got, 1), Patience());
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("member 1 is gone"));
}

TEST_P(RankFaultTest, EndsAtTheDeadlineAndSaysWhoWasAwaited) {
  const Groups groups = Make(2);
  std::vector<float> values(576);
  const RankTicket ticket = groups[0]->AllReduce(values);
  const int64_t begin_us = Clock::Real().NowUs();
  const Status status = groups[0]->Wait(ticket, SecondsFromNow(0.05));
  EXPECT_GE(Clock::Real().NowUs() - begin_us, 50'000);
  EXPECT_LT(Clock::Real().NowUs() - begin_us, 10'000'000);
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status.ToString();
  EXPECT_THAT(status.message(), HasSubstr("operation 1 (all_reduce of 2304 bytes)"));
  EXPECT_THAT(status.message(), HasSubstr("waiting for member 1"));
  EXPECT_EQ(groups[0]->Wait(ticket, Patience()), status) << "a group is of no use after a fault";
  // The other one learns of it before its own deadline.
  EXPECT_FALSE(groups[1]
                   ->Wait(groups[1]->Recv(std::as_writable_bytes(std::span(values)), 0), Patience())
                   .ok());
}

TEST_P(RankFaultTest, ASendThatNobodyTakesEndsAtItsDeadline) {
  const Groups groups = Make(2);
  const std::vector<std::byte> data(1'500'000);
  Status status;
  const int64_t begin_us = Clock::Real().NowUs();
  // Until the queues are full.
  for (uint32_t i = 0; i < 20 && status.ok(); ++i) {
    const int64_t enqueue_us = Clock::Real().NowUs();
    const RankTicket ticket = groups[0]->Send(data, 1);
    EXPECT_LT(Clock::Real().NowUs() - enqueue_us, 5'000'000) << "enqueueing does not wait";
    status = groups[0]->Wait(ticket, SecondsFromNow(0.2));
  }
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status.ToString();
  EXPECT_LT(Clock::Real().NowUs() - begin_us, 15'000'000);
}

// Member 1 of a pair with a fault at its second operation; the first must still be right.
Groups WithTwin(Groups groups, RankFault fault) {
  groups[1] = MakeFaultyGroup(std::move(groups[1]), fault);
  return groups;
}

std::vector<Status> TwoSums(const Groups& groups, double seconds, std::vector<float>* result) {
  std::vector<Status> statuses(2);
  OnMembers(groups, [&](RankGroup& group) {
    for (uint32_t i = 0; i < 2; ++i) {
      std::vector<float> values(100, static_cast<float>(group.rank() + 1));
      const RankTicket ticket = group.AllReduce(values);
      statuses[group.rank()] = group.Wait(ticket, i == 0 ? Patience() : SecondsFromNow(seconds));
      if (i == 0) {
        EXPECT_TRUE(statuses[group.rank()].ok());
        EXPECT_EQ(values, std::vector<float>(100, 3.0F));
      }
      if (group.rank() == 0) *result = values;
    }
  });
  return statuses;
}

TEST_P(RankFaultTest, AStalledMemberEndsBothWaitsAtTheirDeadlines) {
  const Groups groups = WithTwin(Make(2), {.kind = RankFault::Kind::kStall, .at = 2});
  std::vector<float> result;
  const auto statuses = TwoSums(groups, 0.1, &result);
  EXPECT_FALSE(statuses[0].ok());
  EXPECT_EQ(statuses[1].code(), StatusCode::kDeadlineExceeded) << statuses[1].ToString();
}

TEST_P(RankFaultTest, AStalledMemberIsEndedByAbort) {
  const Groups groups = WithTwin(Make(2), {.kind = RankFault::Kind::kStall, .at = 1});
  std::vector<std::byte> data(10);
  auto waiting = std::async(std::launch::async,
                            [&] { return groups[1]->Wait(groups[1]->Recv(data, 0), Patience()); });
  groups[1]->Abort(Unavailable("enough"));
  EXPECT_EQ(waiting.get(), Unavailable("enough"));
}

TEST_P(RankFaultTest, ADroppedOperationIsNoticedByTheNextOne) {
  const Groups groups = WithTwin(Make(2), {.kind = RankFault::Kind::kDrop, .at = 1});
  std::vector<float> values(100);
  std::vector<std::byte> data(10);
  const auto drop_then_send = [&](RankGroup& group) {
    const RankTicket dropped = group.AllReduce(values);
    EXPECT_TRUE(group.Wait(dropped, Patience()).ok());
    return group.Broadcast(data, 1);
  };
  std::vector<float> sum(100);
  const Outcome outcome = Both(
      groups, [&](RankGroup& group) { return group.AllReduce(sum); }, drop_then_send);
  EXPECT_EQ(outcome.first.code(), StatusCode::kDataLoss) << outcome.first.ToString();
}

TEST_P(RankFaultTest, ADelayedOperationIsOnlyLate) {
  const Groups groups =
      WithTwin(Make(2), {.kind = RankFault::Kind::kDelay, .at = 2, .delay_us = 30'000});
  std::vector<float> result;
  const int64_t begin_us = Clock::Real().NowUs();
  const auto statuses = TwoSums(groups, 100, &result);
  EXPECT_GE(Clock::Real().NowUs() - begin_us, 30'000);
  EXPECT_TRUE(statuses[0].ok() && statuses[1].ok());
  EXPECT_EQ(result, std::vector<float>(100, 3.0F));
}

TEST_P(RankFaultTest, ACorruptOperationChangesWhatTheOthersGet) {
  const Groups groups = WithTwin(Make(2), {.kind = RankFault::Kind::kCorrupt, .at = 2});
  std::vector<float> result;
  const auto statuses = TwoSums(groups, 100, &result);
  EXPECT_TRUE(statuses[0].ok() && statuses[1].ok());
  EXPECT_NE(result, std::vector<float>(100, 3.0F));
}

std::string MakerName(const ::testing::TestParamInfo<size_t>& info) {
  return RankMakers()[info.param].name;
}

INSTANTIATE_TEST_SUITE_P(Makers, RankFaultTest, ::testing::Values(0, 1), MakerName);

}  // namespace
}  // namespace muselet::testing
