// A rank group whose members are threads of one test: queues of messages, nothing of a transport.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "comms/rank_group.h"

namespace muselet::testing {

// What the members share.
struct ThreadMailbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::pair<uint32_t, uint32_t>, std::deque<std::vector<std::byte>>> queues;  // from, to
  Status fault;
};

// Sends are copied at once; what is awaited is taken in Wait, in the order of the calls.
class ThreadRankGroup final : public RankGroup {
 public:
  ThreadRankGroup(std::shared_ptr<ThreadMailbox> mailbox, uint32_t rank, uint32_t size)
      : mailbox_(std::move(mailbox)), rank_(rank), size_(size) {}

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return size_; }
  std::string_view transport() const override { return "threads"; }

  RankTicket AllReduce(std::span<float>) override { CHECK(false, "not used by a model"); }
  RankTicket AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    CHECK(all.size() == mine.size() * size_, "shapes differ");
    std::memcpy(all.data() + rank_ * mine.size(), mine.data(), mine.size());
    for (uint32_t other = 0; other < size_; ++other) {
      if (other == rank_) continue;
      Post(mine, other);
      awaited_.push_back({tickets_ + 1, other, all.subspan(other * mine.size(), mine.size())});
    }
    return ++tickets_;
  }
  RankTicket Broadcast(std::span<std::byte>, uint32_t) override {
    CHECK(false, "not used by a model");
  }
  RankTicket Send(std::span<const std::byte> data, uint32_t to) override {
    Post(data, to);
    return ++tickets_;
  }
  RankTicket Recv(std::span<std::byte> data, uint32_t from) override {
    awaited_.push_back({++tickets_, from, data});
    return tickets_;
  }
  Status Wait(RankTicket ticket, int64_t deadline_us) override {
    std::unique_lock lock(mailbox_->mutex);
    while (!awaited_.empty() && awaited_.front().ticket <= ticket) {
      auto& queue = mailbox_->queues[{awaited_.front().from, rank_}];
      const auto ready = [&] { return !queue.empty() || !mailbox_->fault.ok(); };
      const int64_t left = std::min<int64_t>(deadline_us - Clock::Real().NowUs(), 60'000'000);
      if (!mailbox_->changed.wait_for(lock, std::chrono::microseconds(left), ready))
        return DeadlineExceeded("no message from " + std::to_string(awaited_.front().from));
      if (!mailbox_->fault.ok()) return mailbox_->fault;
      const std::span<std::byte> into = awaited_.front().into;
      if (queue.front().size() != into.size()) return DataLoss("not the same operation");
      std::memcpy(into.data(), queue.front().data(), into.size());
      queue.pop_front();
      awaited_.pop_front();
    }
    return mailbox_->fault;
  }
  void Abort(const Status& reason) override {
    const std::lock_guard lock(mailbox_->mutex);
    mailbox_->fault = Unavailable(std::string(reason.message()));
    mailbox_->changed.notify_all();
  }
  RankProgress progress() const override { return {tickets_, tickets_}; }
  std::vector<RankOperationRecord> records() const override { return {}; }

 private:
  struct Awaited {
    RankTicket ticket = 0;
    uint32_t from = 0;
    std::span<std::byte> into;
  };

  void Post(std::span<const std::byte> data, uint32_t to) {
    const std::lock_guard lock(mailbox_->mutex);
    mailbox_->queues[{rank_, to}].emplace_back(data.begin(), data.end());
    mailbox_->changed.notify_all();
  }

  const std::shared_ptr<ThreadMailbox> mailbox_;
  const uint32_t rank_, size_;
  RankTicket tickets_ = 0;
  std::deque<Awaited> awaited_;
};

// All members of one group.
inline std::vector<std::unique_ptr<RankGroup>> MakeThreadGroup(uint32_t size) {
  const auto mailbox = std::make_shared<ThreadMailbox>();
  std::vector<std::unique_ptr<RankGroup>> members;
  for (uint32_t rank = 0; rank < size; ++rank)
    members.push_back(std::make_unique<ThreadRankGroup>(mailbox, rank, size));
  return members;
}

}  // namespace muselet::testing
