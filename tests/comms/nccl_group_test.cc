// What the program does with a plugin: deadlines, faults, aborts and their budget. The plugin is
// one that does as it is told; tests/cuda has the real one.
#include "comms/nccl_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <future>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tests/comms/rank_members.h"
#include "tests/support/shared_rendezvous.h"

namespace muselet {

struct CudaGroup {
  CudaGroupSpec spec;
  uint64_t enqueued = 0;
};

namespace testing {
namespace {

using ::testing::HasSubstr;

// How the plugin behaves, and what it was asked for.
struct Orders {
  std::atomic<uint32_t> devices = 1;
  std::atomic<bool> ready = true;
  std::atomic<bool> completes = true;
  std::atomic<bool> breaks = false;  // the device gives up
  std::promise<void> end_may_return;
  std::shared_future<void> end_returns;
  std::atomic<uint32_t> ends = 0;
  std::atomic<uint32_t> calls_after_end = 0;
  std::vector<CudaOperation> operations;
};
Orders* orders = nullptr;

void Break(CudaFault* fault, const char* message) {
  fault->code = static_cast<int32_t>(StatusCode::kUnavailable);
  std::strncpy(fault->message, message, sizeof(fault->message) - 1);
}

constexpr CudaPluginTable kObedient = {
    [](CudaFault* fault) -> uint32_t {
      if (orders->devices == 0) Break(fault, "no driver is installed");
      return orders->devices;
    },
    [](char* bytes, CudaFault*) { std::memset(bytes, 'i', kCudaUniqueIdBytes); },
    [](const CudaGroupSpec* spec, CudaFault*) { return new CudaGroup{*spec}; },
    [](CudaGroup*, CudaFault*) -> uint32_t { return orders->ready ? 1 : 0; },
    [](CudaGroup* group, const CudaOperation* operation, CudaFault*) {
      orders->operations.push_back(*operation);
      group->enqueued = operation->ticket;
      if (orders->ends > 0) ++orders->calls_after_end;
    },
    [](CudaGroup* group, CudaFault* fault) -> uint64_t {
      if (orders->ends > 0) ++orders->calls_after_end;
      if (orders->breaks) Break(fault, "the device fell off the bus");
      return orders->completes ? group->enqueued : 0;
    },
    [](CudaGroup*) {
      ++orders->ends;
      if (orders->end_returns.valid()) orders->end_returns.wait();
    },
    [](CudaGroup* group) { delete group; },
    nullptr,
    nullptr,
    nullptr};

class NcclGroupTest : public ::testing::Test {
 protected:
  NcclGroupTest() { orders = &orders_; }
  ~NcclGroupTest() override { orders = nullptr; }

  Result<std::unique_ptr<RankGroup>> TryMake(double seconds = 100, NcclGroupOptions options = {}) {
    return MakeNcclGroup(
        {.name = "tensor-0", .rank = 0, .size = 2, .deadline_us = SecondsFromNow(seconds)}, options,
        kObedient, rendezvous_);
  }
  std::unique_ptr<RankGroup> Make(NcclGroupOptions options = {}) {
    auto made = TryMake(100, std::move(options));
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    return *std::move(made);
  }

  Orders orders_;
  SharedRendezvous rendezvous_;
  std::vector<float> values_ = std::vector<float>(10);
};

TEST_F(NcclGroupTest, EnqueuesAndSaysWhenItIsDone) {
  const auto group = Make();
  EXPECT_EQ(group->memory(), RankMemory::kDevice);
  EXPECT_EQ(group->transport(), "nccl");
  const auto bytes = std::as_writable_bytes(std::span(values_));
  group->AllReduce(values_);
  const RankTicket last = group->Send(bytes.first(8), 1);
  EXPECT_TRUE(group->Wait(last, Patience()).ok());
  EXPECT_EQ(group->progress().completed, 2U);
  ASSERT_EQ(orders_.operations.size(), 2U);
  EXPECT_EQ(orders_.operations[0].bytes, 40U);
  EXPECT_EQ(orders_.operations[0].in, orders_.operations[0].out);
  EXPECT_EQ(orders_.operations[1].peer, 1U);
  EXPECT_EQ(orders_.operations[1].in, values_.data());
  EXPECT_EQ(*rendezvous_.Get("tensor-0/nccl/id", 0), std::string(kCudaUniqueIdBytes, 'i'));
}

TEST_F(NcclGroupTest, SaysWhyThereIsNoDevice) {
  EXPECT_THAT(TryMake(1, {.device = 3}).status().message(), HasSubstr("no device cuda:3"));
  orders_.devices = 0;
  const auto made = TryMake();
  EXPECT_EQ(made.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(made.status().message(), HasSubstr("tensor-0"));
  EXPECT_THAT(made.status().message(), HasSubstr("no driver is installed"));
}

TEST_F(NcclGroupTest, IsNotMadeWhereMembersDoNotComeOrTheEpochEnds) {
  orders_.ready = false;
  EXPECT_EQ(TryMake(0.05).status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(orders_.ends, 1U) << "what was begun is aborted";
  auto making = std::async(std::launch::async, [this] {
    SharedRendezvous rendezvous;
    rendezvous.End();
    return MakeNcclGroup({.name = "x", .rank = 1, .size = 2, .deadline_us = Patience()}, {},
                         kObedient, rendezvous)
        .status();
  });
  EXPECT_EQ(making.get().code(), StatusCode::kUnavailable);
}

TEST_F(NcclGroupTest, EndsAtTheDeadlineOfAnOperation) {
  orders_.completes = false;
  const auto group = Make();
  const RankTicket ticket = group->AllReduce(values_);
  const Status status = group->Wait(ticket, SecondsFromNow(0.05));
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr("tensor-0"));
  EXPECT_EQ(group->Wait(ticket, Patience()), status) << "for ever";
}

TEST_F(NcclGroupTest, GivesWhatTheDeviceSaysAsItsFault) {
  const auto group = Make();
  const RankTicket ticket = group->AllReduce(values_);
  orders_.breaks = true;
  const Status status = group->Wait(ticket, Patience());
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("fell off the bus"));
}

TEST_F(NcclGroupTest, AnAbortWakesWhoWaitsAndNothingIsCalledAfterIt) {
  orders_.completes = false;
  {
    const auto group = Make();
    const RankTicket ticket = group->AllReduce(values_);
    auto waiting = std::async(std::launch::async, [&] { return group->Wait(ticket, Patience()); });
    group->Abort(Unavailable("rank 1 is lost"));
    EXPECT_EQ(waiting.get(), Unavailable("rank 1 is lost"));
    group->Abort(Unavailable("again"));
    EXPECT_FALSE(group->Wait(group->AllReduce(values_), Patience()).ok());
  }
  EXPECT_EQ(orders_.ends, 1U);
  EXPECT_EQ(orders_.calls_after_end, 0U);
}

TEST_F(NcclGroupTest, GivesTheProcessUpWhereAnAbortTakesTooLong) {
  orders_.end_returns = orders_.end_may_return.get_future().share();
  std::promise<std::string> gave_up;
  NcclGroupOptions options;
  options.abort_budget_us = 20'000;
  options.give_up = [&](const std::string& reason) { gave_up.set_value(reason); };
  const auto group = Make(options);
  group->Abort(Unavailable("rank 1 is lost"));
  EXPECT_THAT(gave_up.get_future().get(), HasSubstr("tensor-0"));
  orders_.end_may_return.set_value();
}

TEST(CudaPluginTest, SaysWhyItCannotBeLoaded) {
  EXPECT_THAT(LoadCudaPlugin("libno_such_plugin.so").status().message(),
              HasSubstr("libno_such_plugin.so"));
  EXPECT_THAT(LoadCudaPlugin("libzmq.so.5").status().message(), HasSubstr("is no plugin"));
}

}  // namespace
}  // namespace testing
}  // namespace muselet
