// What the ranks of a replica use to hand tensors to one another: collective operations among the
// members of one group. A tensor group has one RankGroup, each edge of the pipeline one of two
// members, so that neither waits for the other.
//
// An operation is enqueued in the order of the calls (on the group's stream, where there is one)
// and named by a ticket; every member calls the same operations in the same order with the same
// sizes: the order is part of the plan. Memory handed in stays valid and untouched until its ticket
// was waited for. The deadline belongs to the step's fence: Wait. After a fault or Abort nothing
// works any more, and the group is replaced by one of the next epoch.
//
// Sums are the same bits on every maker: values[0 .. n) of all members are added elementwise by the
// pairwise tree of base/device/ops.h over the member numbers.
//
// What operations are given lies in the process's memory, or in that of the group's device:
// memory() says which. Nothing is copied between the two.
//
// One thread calls the operations and Wait; Abort and progress may be called from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace muselet {

// The number of an operation within its group: 1, 2, 3, ...
using RankTicket = uint64_t;

enum class RankOperation : uint8_t { kAllReduce, kAllGather, kBroadcast, kSend, kRecv };
std::string_view RankOperationName(RankOperation operation);

enum class RankMemory : uint8_t { kHost, kDevice };

struct RankProgress {
  RankTicket enqueued = 0;
  RankTicket completed = 0;
};

// One of the last operations, for the dump that goes to the log when a group is aborted.
struct RankOperationRecord {
  RankTicket ticket = 0;
  RankOperation operation = RankOperation::kAllReduce;
  uint32_t peer = 0;  // root, receiver or sender; the own number for the others
  size_t bytes = 0;
  bool completed = false;
};

class RankGroup {
 public:
  static constexpr size_t kRecordsKept = 32;

  // Ends all operations; members that wait for this one find it gone.
  virtual ~RankGroup() = default;
  virtual uint32_t rank() const = 0;  // the own number, [0, size())
  virtual uint32_t size() const = 0;
  virtual std::string_view transport() const = 0;  // "shm", "gloo", "nccl"
  // Where the memory lies that operations take.
  virtual RankMemory memory() const { return RankMemory::kHost; }

  // values of every member become the sum over the members.
  virtual RankTicket AllReduce(std::span<float> values) = 0;
  // all [size() * mine.size()] becomes the members' `mine`, in the order of their numbers.
  virtual RankTicket AllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // data of every member becomes that of `root`.
  virtual RankTicket Broadcast(std::span<std::byte> data, uint32_t root) = 0;
  // A Send is met by the receiver's Recv of the same size; those of one pair keep their order. A
  // Send may complete before the receiver has called Recv.
  virtual RankTicket Send(std::span<const std::byte> data, uint32_t to) = 0;
  virtual RankTicket Recv(std::span<std::byte> data, uint32_t from) = 0;

  // Until the operation and all before it are complete. kDeadlineExceeded: not by `deadline_us` of
  // the monotonic clock (base/clock); kUnavailable: a member is gone, or the reason given to Abort;
  // kDataLoss: the members did not call the same operation, as far as the maker can tell that from
  // a member that is late. The group is of no use after a fault.
  virtual Status Wait(RankTicket ticket, int64_t deadline_us) = 0;

  // Makes every Wait here return kUnavailable with `reason`, now and later, and lets the other
  // members notice. Logs the last operations, once; not for kCancelled, an end on purpose.
  virtual void Abort(const Status& reason) = 0;

  virtual RankProgress progress() const = 0;
  // The last operations, oldest first.
  virtual std::vector<RankOperationRecord> records() const = 0;
};

}  // namespace muselet
