// Four ranks as threads: two stages of two, on one node or on two.
#include "node/rank/epoch_links.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <array>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace muselet {
namespace {

int64_t In(int64_t seconds) {
  return Clock::Real().NowUs() + seconds * 1'000'000;
}

// The ranks of an epoch, whose values reach all of them as a leader would relay them.
class Epoch {
 public:
  explicit Epoch(std::vector<RankPlace> places) {
    form_.epoch = 7;
    form_.places = std::move(places);
    for (size_t rank = 0; rank < form_.places.size(); ++rank) {
      ranks_.push_back(std::make_unique<EpochLinks>(
          form_.epoch, [this](const std::string& key, const std::string& value) {
            for (auto& other : ranks_) other->OnValue(key, value);
          }));
    }
  }
  EpochLinks& rank(size_t number) { return *ranks_[number]; }

  std::vector<Status> MakeAll(uint32_t tensor, uint32_t pipeline) {
    std::vector<Status> made(ranks_.size());
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < ranks_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        made[rank] = ranks_[rank]->Make(form_, {rank, tensor, pipeline}, In(30));
      });
    }
    for (std::thread& thread : threads) thread.join();
    return made;
  }

 private:
  RankForm form_;
  std::vector<std::unique_ptr<EpochLinks>> ranks_;
};

std::string Transport(const RankGroup* group) {
  return group == nullptr ? "none" : std::string(group->transport());
}

TEST(EpochLinks, JoinsRanksOfOneNodeBySharedMemoryAndOthersByGloo) {
  const RankPlace a{"n0", "127.0.0.1"};
  const RankPlace b{"n1", "127.0.0.1"};
  Epoch epoch({a, a, b, b});
  for (const Status& made : epoch.MakeAll(2, 2)) ASSERT_TRUE(made.ok()) << made.message();
  const RankLinks first = epoch.rank(0).links();
  EXPECT_EQ(Transport(first.tensor), "shm");
  EXPECT_EQ(Transport(first.previous), "none");
  EXPECT_EQ(Transport(first.next), "gloo");
  EXPECT_EQ(first.next->rank(), 0U);
  const RankLinks last = epoch.rank(3).links();
  EXPECT_EQ(Transport(last.tensor), "shm");
  EXPECT_EQ(last.tensor->rank(), 1U);
  EXPECT_EQ(Transport(last.previous), "gloo");
  EXPECT_EQ(last.previous->rank(), 1U);
  EXPECT_EQ(Transport(last.next), "none");
}

// The other rank gave an address and never connects: the member with the lower address waits.
TEST(EpochLinks, AnAbortReachesAGroupThatIsHalfMade) {
  RankForm form;
  form.places = {{"n0", "127.0.0.1"}, {"n1", "127.9.9.9"}};
  std::promise<void> told;
  EpochLinks* links = nullptr;
  EpochLinks rank(7, [&](const std::string& key, std::string value) {
    ASSERT_EQ(key, "edge-0-0/gloo/0-1");
    sockaddr_in address = {};
    ASSERT_GT(value.size(), 16 + sizeof(address));  // a token before it
    std::memcpy(&address, value.data() + 16, sizeof(address));
    ASSERT_EQ(inet_pton(AF_INET, "127.9.9.9", &address.sin_addr), 1);
    std::memcpy(value.data() + 16, &address, sizeof(address));
    links->OnValue("edge-0-0/gloo/1-0", value);
    told.set_value();
  });
  links = &rank;
  auto made = std::async(std::launch::async, [&] { return rank.Make(form, {0, 1, 2}, In(100)); });
  told.get_future().wait();
  const int64_t begin_us = Clock::Real().NowUs();
  rank.Abort("a rank was lost");
  const Status status = made.get();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("a rank was lost"), std::string::npos) << status.message();
  EXPECT_LT(Clock::Real().NowUs() - begin_us, 1'500'000) << "well before a rank ends itself";
}

TEST(EpochLinks, JoinsEachRankToItsOwnOfTheNextStage) {
  const RankPlace here{"n0", "127.0.0.1"};
  Epoch epoch({here, here, here, here});
  for (const Status& made : epoch.MakeAll(2, 2)) ASSERT_TRUE(made.ok()) << made.message();
  for (const size_t sender : {0, 1}) {
    const auto byte = static_cast<std::byte>(sender + 40);
    std::array<std::byte, 1> sent{byte};
    std::array<std::byte, 1> received{};
    RankGroup* next = epoch.rank(sender).links().next;
    RankGroup* previous = epoch.rank(sender + 2).links().previous;
    const RankTicket sending = next->Send(sent, 1);
    const RankTicket receiving = previous->Recv(received, 0);
    EXPECT_TRUE(previous->Wait(receiving, In(10)).ok());
    EXPECT_TRUE(next->Wait(sending, In(10)).ok());
    EXPECT_EQ(received[0], byte);
  }
}

TEST(EpochLinks, AnAbortWakesWhoWaitsForAnotherRank) {
  const RankPlace here{"n0", "127.0.0.1"};
  Epoch epoch({here, here});
  for (const Status& made : epoch.MakeAll(1, 2)) ASSERT_TRUE(made.ok()) << made.message();
  std::array<std::byte, 1> received{};
  RankGroup* previous = epoch.rank(1).links().previous;
  const RankTicket receiving = previous->Recv(received, 0);
  std::thread other([&] { epoch.rank(1).Abort("rank 0 is lost"); });
  const Status status = previous->Wait(receiving, In(30));
  other.join();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("rank 0 is lost"), std::string::npos) << status.message();
}

TEST(EpochLinks, AnAbortEndsTheWaitForAValueNowAndLater) {
  Epoch epoch({{"n0", "h"}, {"n0", "h"}});
  std::thread other([&] { epoch.rank(0).Abort("no more"); });
  const Result<std::string> value = epoch.rank(0).Get("key", In(30));
  other.join();
  EXPECT_EQ(value.status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(epoch.rank(0).Put("key", "value").code(), StatusCode::kUnavailable);
}

TEST(EpochLinks, AValueThatNobodyTellsIsNamedAtTheDeadline) {
  Epoch epoch({{"n0", "h"}, {"n0", "h"}});
  const Result<std::string> value =
      epoch.rank(0).Get("edge-0-1/address", Clock::Real().NowUs() + 1000);
  EXPECT_EQ(value.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(value.status().message().find("edge-0-1/address"), std::string::npos);
}

}  // namespace
}  // namespace muselet
