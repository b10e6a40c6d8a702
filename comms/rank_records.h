// What a rank group remembers of its operations: how far it is, the last few of them, and why it
// ended. Makers of RankGroup share it, so that every dump in the log reads the same.
//
// Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "comms/rank_group.h"

namespace muselet {

class RankRecords {
 public:
  RankRecords(std::string group, std::string_view transport, uint32_t rank);

  // Numbers an operation: 1, 2, 3, ...
  RankTicket Enqueued(RankOperation operation, uint32_t peer, size_t bytes);
  // Operations complete in the order of their numbers.
  void Completed(RankTicket ticket);

  // The first fault stands; true for that one, whose last operations are logged. kOk is not a
  // fault. kCancelled is an end on purpose: logged for debugging only, and kept as kUnavailable.
  bool Fault(const Status& fault);
  bool faulted() const { return faulted_.load(std::memory_order_acquire); }
  Status fault() const;

  RankTicket completed() const { return completed_.load(std::memory_order_acquire); }
  RankProgress progress() const;
  std::vector<RankOperationRecord> records() const;

 private:
  std::vector<RankOperationRecord> RecordsLocked() const;

  const std::string group_;
  const std::string transport_;
  const uint32_t rank_;
  std::atomic<RankTicket> enqueued_{0};
  std::atomic<RankTicket> completed_{0};
  std::atomic<bool> faulted_{false};
  mutable std::mutex mutex_;
  std::vector<RankOperationRecord> ring_;  // under mutex_; ticket t stands at t % kRecordsKept
  Status fault_;                           // under mutex_
};

// "17 all_reduce 2304 bytes, 18 send to 1 4096 bytes (open)": the records as one line.
std::string DescribeRankRecords(const std::vector<RankOperationRecord>& records);

}  // namespace muselet
