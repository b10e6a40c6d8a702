// The conformance suite: what every maker of RankGroup does, with the same bits.
#include "comms/rank_group.h"

#include <gtest/gtest.h>

#include <cstring>
#include <future>
#include <random>
#include <thread>

#include "comms/rank_group_makers.h"
#include "comms/rank_tree.h"
#include "tests/comms/rank_members.h"

namespace muselet::testing {
namespace {

struct Case {
  size_t maker = 0;  // of RankMakers()
  uint32_t size = 1;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (size_t maker = 0; maker < RankMakers().size(); ++maker) {
    for (uint32_t size = 1; size <= 4; ++size) cases.push_back({maker, size});
  }
  return cases;
}

class RankGroupTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string why = maker().why_not ? maker().why_not(size()) : "";
    if (!why.empty()) GTEST_SKIP() << why;
  }
  const RankMaker& maker() const { return RankMakers()[GetParam().maker]; }
  uint32_t size() const { return GetParam().size; }
  Groups Make(size_t message_bytes_max = 64U << 20) const {
    return MakeMembers(maker(), size(), message_bytes_max);
  }
};

// Bits, not values.
void ExpectSameBits(const std::vector<float>& got, const std::vector<float>& want,
                    const std::string& where) {
  ASSERT_EQ(got.size(), want.size()) << where;
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0) << where;
}

std::vector<float> SumByHand(uint32_t size, size_t count, uint32_t seed) {
  std::vector<std::vector<float>> parts;
  for (uint32_t member = 0; member < size; ++member) {
    parts.push_back(TouchyValues(member, count, seed));
  }
  std::vector<float> sum(count);
  std::vector<float> column(size);
  for (size_t i = 0; i < count; ++i) {
    for (uint32_t member = 0; member < size; ++member) column[member] = parts[member][i];
    sum[i] = TreeOf(column.data(), size);
  }
  return sum;
}

void CheckAllReduce(RankGroup& group, uint32_t seed, const std::vector<float>& want) {
  const size_t count = want.size();
  std::vector<float> values = TouchyValues(group.rank(), count, seed);
  const RankTicket ticket = group.AllReduce(values);
  const Status done = group.Wait(ticket, Patience());
  ASSERT_TRUE(done.ok()) << done.ToString();
  ExpectSameBits(values, want, std::to_string(count));
}

TEST_P(RankGroupTest, SumsByTheTreeOverMemberNumbers) {
  const Groups groups = Make();
  for (const size_t count : {1U, 3U, 64U, 576U, 2304U, 8192U, 100'003U}) {
    const auto want = SumByHand(size(), count, 7);
    OnMembers(groups, [&](RankGroup& group) { CheckAllReduce(group, 7, want); });
  }
}

TEST(RankTreeTest, EqualsTheTreeWrittenByHandForEveryNumberOfParts) {
  constexpr size_t kCount = 333;
  for (uint32_t size = 1; size <= 17; ++size) {
    std::vector<std::vector<float>> parts;
    std::vector<const float*> pointers;
    for (uint32_t part = 0; part < size; ++part) parts.push_back(TouchyValues(part, kCount, 3));
    for (const auto& part : parts) pointers.push_back(part.data());
    const std::vector<float> want = SumByHand(size, kCount, 3);
    RankTreeSum(pointers, kCount, parts[size / 2].data());
    ExpectSameBits(parts[size / 2], want, std::to_string(size));
  }
}

TEST(RankTreeTest, TheTestsValuesTellAnotherOrderApart) {
  for (const uint32_t size : {3U, 4U}) {
    std::vector<float> chain = TouchyValues(size - 1, 2304, 7);
    for (uint32_t member = size - 1; member-- > 0;) {
      const auto values = TouchyValues(member, 2304, 7);
      for (size_t i = 0; i < chain.size(); ++i) chain[i] = values[i] + chain[i];
    }
    EXPECT_NE(chain, SumByHand(size, 2304, 7)) << size;
  }
}

TEST_P(RankGroupTest, GathersInTheOrderOfMemberNumbers) {
  const Groups groups = Make();
  OnMembers(groups, [](RankGroup& group) {
    for (const size_t bytes : {0U, 1U, 12'345U, 300'001U}) {
      const auto mine = RandomBytes(group.rank(), bytes, 5);
      std::vector<std::byte> all(bytes * group.size());
      ASSERT_TRUE(group.Wait(group.AllGather(mine, all), Patience()).ok());
      std::vector<std::byte> want;
      for (uint32_t member = 0; member < group.size(); ++member) {
        const auto theirs = RandomBytes(member, bytes, 5);
        want.insert(want.end(), theirs.begin(), theirs.end());
      }
      EXPECT_EQ(all, want) << bytes;
    }
  });
}

TEST_P(RankGroupTest, BroadcastsFromEachRoot) {
  const Groups groups = Make();
  OnMembers(groups, [](RankGroup& group) {
    for (uint32_t root = 0; root < group.size(); ++root) {
      auto data = RandomBytes(group.rank(), 70'001, 11);
      ASSERT_TRUE(group.Wait(group.Broadcast(data, root), Patience()).ok());
      EXPECT_EQ(data, RandomBytes(root, 70'001, 11)) << root;
    }
  });
}

TEST_P(RankGroupTest, PassesMessagesRoundTheRingInTheirOrder) {
  if (size() == 1) return;  // nobody to send to: the calls would be broken invariants
  const Groups groups = Make();
  OnMembers(groups, [](RankGroup& group) {
    const uint32_t to = (group.rank() + 1) % group.size();
    const uint32_t from = (group.rank() + group.size() - 1) % group.size();
    std::vector<std::vector<std::byte>> sent, received;
    RankTicket last = 0;
    for (uint32_t i = 0; i < 10; ++i) {
      sent.push_back(RandomBytes(group.rank(), i * 7919, i));
      received.emplace_back(i * 7919);
      last = group.Send(sent[i], to);
    }
    for (uint32_t i = 0; i < 10; ++i) last = group.Recv(received[i], from);
    ASSERT_TRUE(group.Wait(last, Patience()).ok());
    for (uint32_t i = 0; i < 10; ++i) EXPECT_EQ(received[i], RandomBytes(from, i * 7919, i)) << i;
  });
}

TEST_P(RankGroupTest, CompletesASendBeforeItsReceiverAsks) {
  if (size() == 1 || !maker().keeps_sends) return;
  const Groups groups = Make();
  const auto data = RandomBytes(0, 1'000'000, 1);
  ASSERT_TRUE(groups[0]->Wait(groups[0]->Send(data, 1), Patience()).ok());
  std::vector<std::byte> got(data.size());
  ASSERT_TRUE(groups[1]->Wait(groups[1]->Recv(got, 0), Patience()).ok());
  EXPECT_EQ(got, data);
}

TEST_P(RankGroupTest, WaitsForMembersThatComeLate) {
  const Groups groups = Make();
  std::vector<std::promise<void>> called(size() + 1);
  called[0].set_value();
  OnMembers(groups, [&](RankGroup& group) {
    // The last member calls when all others have called.
    called[group.rank()].get_future().wait();
    std::vector<float> values = TouchyValues(group.rank(), 5000, 2);
    const RankTicket ticket = group.AllReduce(values);
    called[group.rank() + 1].set_value();
    ASSERT_TRUE(group.Wait(ticket, Patience()).ok());
    ExpectSameBits(values, SumByHand(group.size(), 5000, 2), "late");
  });
}

TEST_P(RankGroupTest, CarriesMessagesLargerThanItsQueues) {
  const Groups groups = Make();
  constexpr size_t kCount = 2'300'000;
  const auto want = SumByHand(size(), kCount, 9);
  OnMembers(groups, [&](RankGroup& group) {
    CheckAllReduce(group, 9, want);
    auto data = RandomBytes(group.rank(), 4 * kCount, 4);
    ASSERT_TRUE(group.Wait(group.Broadcast(data, group.size() - 1), Patience()).ok());
    EXPECT_EQ(data, RandomBytes(group.size() - 1, 4 * kCount, 4));
    if (group.size() == 1) return;
    if (group.rank() == 0) {
      ASSERT_TRUE(group.Wait(group.Send(data, 1), Patience()).ok());
    } else if (group.rank() == 1) {
      std::vector<std::byte> got(data.size());
      ASSERT_TRUE(group.Wait(group.Recv(got, 0), Patience()).ok());
      EXPECT_EQ(got, data);
    }
  });
}

TEST_P(RankGroupTest, KeepsSmallQueuesForSmallMessages) {
  const Groups groups = Make(4000);
  const auto want = SumByHand(size(), 1000, 5);
  OnMembers(groups, [&](RankGroup& group) {
    for (uint32_t i = 0; i < 100; ++i) CheckAllReduce(group, 5, want);
  });
}

TEST_P(RankGroupTest, MixesOperationsAndCompletesThemInOrder) {
  const Groups groups = Make();
  OnMembers(groups, [](RankGroup& group) {
    std::mt19937 random(42);  // the same on every member
    for (uint32_t round = 0; round < 30; ++round) {
      const size_t count = random() % 20'000;
      const uint32_t root = random() % group.size();
      std::vector<float> sum = TouchyValues(group.rank(), count, round);
      const auto mine = RandomBytes(group.rank(), count, round);
      std::vector<std::byte> all(count * group.size());
      auto shared = RandomBytes(group.rank(), count, round);
      const RankTicket first = group.AllReduce(sum);
      const RankTicket second = group.AllGather(mine, all);
      const RankTicket third = group.Broadcast(shared, root);
      ASSERT_EQ(second, first + 1);
      ASSERT_EQ(third, first + 2);
      ASSERT_TRUE(group.Wait(third, Patience()).ok());
      ASSERT_TRUE(group.Wait(first, 0).ok()) << "complete: no deadline is too early";
      ExpectSameBits(sum, SumByHand(group.size(), count, round), "round");
      EXPECT_EQ(shared, RandomBytes(root, count, round));
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(group.rank() * count);
      EXPECT_TRUE(std::equal(mine.begin(), mine.end(), begin));
    }
  });
}

TEST_P(RankGroupTest, RecordsItsLastOperationsAndItsProgress) {
  const Groups groups = Make();
  OnMembers(groups, [](RankGroup& group) {
    std::vector<float> values(10, 1.0F);
    RankTicket last = 0;
    for (uint32_t i = 0; i < 40; ++i) last = group.AllReduce(values);
    ASSERT_TRUE(group.Wait(last, Patience()).ok());
    EXPECT_EQ(group.progress().enqueued, 40U);
    EXPECT_EQ(group.progress().completed, 40U);
    const auto records = group.records();
    ASSERT_EQ(records.size(), RankGroup::kRecordsKept);
    EXPECT_EQ(records.front().ticket, 40U - RankGroup::kRecordsKept + 1);
    EXPECT_EQ(records.back().ticket, 40U);
    EXPECT_EQ(records.back().operation, RankOperation::kAllReduce);
    EXPECT_EQ(records.back().bytes, 40U);
    EXPECT_TRUE(records.back().completed);
  });
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  return RankMakers()[info.param.maker].name + std::to_string(info.param.size);
}

INSTANTIATE_TEST_SUITE_P(Makers, RankGroupTest, ::testing::ValuesIn(Cases()), CaseName);

}  // namespace
}  // namespace muselet::testing
