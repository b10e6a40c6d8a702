// A rank group whose members do the work themselves, over a link that moves pieces: the operations
// are what a member sends to whom, what it awaits from whom, and its own sum (comms/rank_tree).
// Shared memory and Gloo differ in the link only.
//
// An operation starts when it is enqueued, if all before it are complete, as far as the link has
// room; the rest of it is done inside Wait. Messages go in pieces; a header on each lets members
// see at once that they do not call the same operation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "comms/rank_group.h"
#include "comms/rank_group_makers.h"
#include "comms/rank_link.h"
#include "comms/rank_records.h"

namespace muselet {

class LinkedGroup final : public RankGroup {
 public:
  // `link` may be null if spec.size is 1. REQUIRES: rank < size <= kRankMembersMax.
  LinkedGroup(const RankGroupSpec& spec, std::string_view transport,
              std::unique_ptr<RankLink> link);
  ~LinkedGroup() override;

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return size_; }
  std::string_view transport() const override { return transport_; }

  RankTicket AllReduce(std::span<float> values) override;
  RankTicket AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  RankTicket Broadcast(std::span<std::byte> data, uint32_t root) override;
  RankTicket Send(std::span<const std::byte> data, uint32_t to) override;
  RankTicket Recv(std::span<std::byte> data, uint32_t from) override;
  Status Wait(RankTicket ticket, int64_t deadline_us) override;
  void Abort(const Status& reason) override;
  RankProgress progress() const override { return records_.progress(); }
  std::vector<RankOperationRecord> records() const override { return records_.records(); }

 private:
  // An operation that is not complete. Pieces are counted within it.
  struct Operation {
    RankTicket ticket = 0;
    RankOperation kind = RankOperation::kAllReduce;
    uint32_t peer = 0;  // root, receiver or sender
    const std::byte* in = nullptr;
    std::byte* out = nullptr;
    size_t bytes = 0;               // of one member's contribution
    size_t pieces = 0;              // of it
    size_t taken = 0;               // pieces taken from every member that sends
    std::vector<size_t> sent = {};  // pieces sent, by member
  };
  // What an operation cannot go on without.
  struct Need {
    enum class Kind { kNothing, kPiece, kRoom } kind = Kind::kNothing;
    uint32_t member = 0;
  };

  RankTicket Enqueue(Operation operation);
  // Does what can be done of the open operations, in order; gives what the first open one needs.
  Result<Need> Progress();
  Result<Need> Advance(Operation& operation);
  Result<Need> AdvanceExchange(Operation& operation);
  Result<Need> AdvanceTake(Operation& operation, uint32_t from);
  // Sends pieces to `to` up to `limit`; false if there is no room for all of them.
  Result<bool> SendPieces(Operation& operation, uint32_t to, size_t limit);
  // The next piece of the operation from `from`, or null; kDataLoss if it is of another operation.
  Result<const RankPiece*> ExpectPiece(const Operation& operation, uint32_t from);
  void Combine(Operation& operation);
  void PopFrom(const Operation& operation, uint32_t from);
  Status Mismatch(const Operation& operation, uint32_t from, const RankPieceHeader& theirs) const;
  Status WaitFault(const Status& fault, uint32_t member) const;
  // Ends the group with this fault, unless one came before.
  void Fail(const Status& fault);
  size_t PieceBegin(const Operation& operation, size_t piece) const;
  size_t PieceBytes(const Operation& operation, size_t piece) const;

  const std::string name_;
  const std::string transport_;
  const uint32_t rank_;
  const uint32_t size_;
  const size_t message_bytes_max_;
  const Clock& clock_;
  const std::unique_ptr<RankLink> link_;
  const size_t piece_bytes_;
  RankRecords records_;
  // Of the calling thread:
  std::deque<Operation> open_;
  std::vector<uint64_t> messages_sent_;   // complete ones, by member
  std::vector<uint64_t> messages_taken_;  // likewise
  std::vector<const float*> parts_;       // of a sum, by member
};

}  // namespace muselet
