#include "comms/faulty_group.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "comms/rank_records.h"

namespace muselet {
namespace {

void TurnBit(std::span<std::byte> data) {
  if (!data.empty()) data[data.size() / 2] ^= std::byte{0x10};
}

class FaultyGroup final : public RankGroup {
 public:
  FaultyGroup(std::unique_ptr<RankGroup> group, const RankFault& fault)
      : group_(std::move(group)),
        fault_(fault),
        records_("faulty twin", group_->transport(), group_->rank()) {}

  uint32_t rank() const override { return group_->rank(); }
  uint32_t size() const override { return group_->size(); }
  std::string_view transport() const override { return group_->transport(); }
  RankMemory memory() const override { return group_->memory(); }

  RankTicket AllReduce(std::span<float> values) override {
    return Call(RankOperation::kAllReduce, rank(), values.size_bytes(), [&](bool corrupt) {
      if (corrupt) TurnBit(std::as_writable_bytes(values));
      return group_->AllReduce(values);
    });
  }
  RankTicket AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    return Call(RankOperation::kAllGather, rank(), mine.size(), [&](bool corrupt) {
      return group_->AllGather(corrupt ? Corrupted(mine) : mine, all);
    });
  }
  RankTicket Broadcast(std::span<std::byte> data, uint32_t root) override {
    return Call(RankOperation::kBroadcast, root, data.size(), [&](bool corrupt) {
      if (corrupt && root == rank()) TurnBit(data);
      return group_->Broadcast(data, root);
    });
  }
  RankTicket Send(std::span<const std::byte> data, uint32_t to) override {
    return Call(RankOperation::kSend, to, data.size(),
                [&](bool corrupt) { return group_->Send(corrupt ? Corrupted(data) : data, to); });
  }
  RankTicket Recv(std::span<std::byte> data, uint32_t from) override {
    return Call(RankOperation::kRecv, from, data.size(), [&](bool corrupt) {
      if (corrupt) received_ = data;
      return group_->Recv(data, from);
    });
  }

  Status Wait(RankTicket ticket, int64_t deadline_us) override {
    if (fault_.kind == RankFault::Kind::kStall && ticket >= fault_.at) {
      return WaitStalled(deadline_us);
    }
    const bool dropped = fault_.kind == RankFault::Kind::kDrop && ticket >= fault_.at;
    const Status status = group_->Wait(ticket - (dropped ? 1 : 0), deadline_us);
    if (!status.ok()) return status;
    if (ticket >= fault_.at) TurnBit(std::exchange(received_, {}));
    if (ticket > records_.completed()) records_.Completed(ticket);
    return status;
  }

  // The group first: a stalled Wait that wakes asks it for the reason.
  void Abort(const Status& reason) override {
    group_->Abort(reason);
    {
      const std::lock_guard lock(mutex_);
      aborted_ = true;
    }
    changed_.notify_all();
  }

  RankProgress progress() const override { return records_.progress(); }
  std::vector<RankOperationRecord> records() const override { return records_.records(); }

 private:
  template <typename Forward>
  RankTicket Call(RankOperation operation, uint32_t peer, size_t bytes, const Forward& forward) {
    const RankTicket ticket = records_.Enqueued(operation, peer, bytes);
    if (fault_.kind == RankFault::Kind::kStall && ticket >= fault_.at) return ticket;
    if (ticket != fault_.at) {
      forward(false);
    } else if (fault_.kind == RankFault::Kind::kDelay) {
      PauseUntil(Clock::Real().NowUs() + fault_.delay_us);
      forward(false);
    } else if (fault_.kind == RankFault::Kind::kCorrupt) {
      forward(true);
    }
    return ticket;
  }

  // True if the group was aborted before that time.
  bool PauseUntil(int64_t until_us) {
    const std::chrono::microseconds left(until_us - Clock::Real().NowUs());
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, left, [this] { return aborted_; });
  }

  Status WaitStalled(int64_t deadline_us) {
    // Aborted, the group says why; otherwise it ends as at any deadline.
    if (!PauseUntil(deadline_us)) {
      group_->Abort(DeadlineExceeded("the operation stalled"));
      return DeadlineExceeded("the operation stalled");
    }
    return group_->Wait(group_->progress().enqueued, deadline_us);
  }

  std::span<const std::byte> Corrupted(std::span<const std::byte> data) {
    copy_.assign(data.begin(), data.end());
    TurnBit(copy_);
    return copy_;
  }

  const std::unique_ptr<RankGroup> group_;
  const RankFault fault_;
  RankRecords records_;
  std::vector<std::byte> copy_;    // given in the place of a caller's constant data
  std::span<std::byte> received_;  // to be corrupted once it is there
  std::mutex mutex_;
  std::condition_variable changed_;
  bool aborted_ = false;  // under mutex_
};

}  // namespace

std::unique_ptr<RankGroup> MakeFaultyGroup(std::unique_ptr<RankGroup> group,
                                           const RankFault& fault) {
  return std::make_unique<FaultyGroup>(std::move(group), fault);
}

}  // namespace muselet
