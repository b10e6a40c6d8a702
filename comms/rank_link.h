// How the members of a rank group hand each other pieces of memory: for each ordered pair of
// members a queue of a few pieces, which a sender fills without waiting for the receiver. What the
// pieces mean is comms/linked_group; a link moves them and says who is gone.
//
// One thread calls everything but Close, which may be called from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/status.h"

namespace muselet {

// What stands before the bytes of a piece, so that members can compare what they do. Members run
// the same binary on machines of one byte order.
struct alignas(64) RankPieceHeader {
  uint64_t message = 0;      // 1, 2, 3, ... between these two members in this direction
  uint64_t ticket = 0;       // the sender's number of the operation
  uint64_t total_bytes = 0;  // of the operation
  uint64_t offset = 0;       // of this piece in it
  uint32_t bytes = 0;        // of this piece
  uint32_t peer = 0;         // a broadcast's root, a send's receiver, otherwise 0
  uint8_t operation = 0;     // RankOperation
};
static_assert(sizeof(RankPieceHeader) == 64);

// A piece as it lies in the link's memory, until it is popped.
struct RankPiece {
  RankPieceHeader header;
  const std::byte* data = nullptr;
};

class RankLink {
 public:
  // Peers that wait for this member find it gone; what was sent before can still be taken.
  virtual ~RankLink() = default;
  virtual std::string_view transport() const = 0;
  virtual size_t piece_bytes() const = 0;   // the largest piece; a multiple of 4
  virtual size_t queue_pieces() const = 0;  // pieces that a sender may be ahead of its receiver

  // Copies a piece into the queue to `to`; false if no room is known. Never waits: AwaitRoom
  // does. A fault is the end of the link.
  virtual Result<bool> TrySend(uint32_t to, const RankPieceHeader& header,
                               std::span<const std::byte> data) = 0;
  // The oldest piece from `from` that is known to be here, or null; valid until Pop.
  virtual const RankPiece* Peek(uint32_t from) = 0;
  virtual void Pop(uint32_t from) = 0;

  // Until a piece from `from` can be peeked, or the queue to `to` has room. kDeadlineExceeded;
  // kUnavailable: that member is gone, or Close was called here.
  virtual Status AwaitPiece(uint32_t from, int64_t deadline_us) = 0;
  virtual Status AwaitRoom(uint32_t to, int64_t deadline_us) = 0;

  // Ends the link: every Await returns kUnavailable, and the peers find this member gone, with the
  // reason where the transport can carry it. Any thread, any number of times.
  virtual void Close(const Status& reason) = 0;
};

}  // namespace muselet
