#include "comms/linked_group.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "comms/rank_tree.h"

namespace muselet {
namespace {

std::string Describe(RankOperation kind, uint64_t ticket, uint64_t bytes) {
  return "operation " + std::to_string(ticket) + " (" + std::string(RankOperationName(kind)) +
         " of " + std::to_string(bytes) + " bytes)";
}

// The operation that the sender of a piece must have called.
RankOperation SenderKind(RankOperation mine) {
  return mine == RankOperation::kRecv ? RankOperation::kSend : mine;
}

}  // namespace

Status ValidateRankGroupSpec(const RankGroupSpec& spec) {
  if (spec.name.empty()) return InvalidArgument("a rank group needs a name");
  if (spec.size == 0 || spec.size > kRankMembersMax || spec.rank >= spec.size) {
    return InvalidArgument("rank group " + spec.name + ": member " + std::to_string(spec.rank) +
                           " of " + std::to_string(spec.size) + ", it takes 1 to " +
                           std::to_string(kRankMembersMax));
  }
  return OkStatus();
}

LinkedGroup::LinkedGroup(const RankGroupSpec& spec, std::string_view transport,
                         std::unique_ptr<RankLink> link)
    : name_(spec.name),
      transport_(transport),
      rank_(spec.rank),
      size_(spec.size),
      message_bytes_max_(spec.message_bytes_max),
      clock_(Clock::Real()),
      link_(std::move(link)),
      piece_bytes_(link_ ? link_->piece_bytes() : std::max<size_t>(4, spec.message_bytes_max)),
      records_(spec.name, transport, spec.rank),
      messages_sent_(spec.size),
      messages_taken_(spec.size),
      parts_(spec.size) {
  CHECK(rank_ < size_ && size_ <= kRankMembersMax && (link_ || size_ == 1), name_);
}

LinkedGroup::~LinkedGroup() = default;

RankTicket LinkedGroup::AllReduce(std::span<float> values) {
  const auto bytes = std::as_writable_bytes(values);
  return Enqueue({.kind = RankOperation::kAllReduce,
                  .in = bytes.data(),
                  .out = bytes.data(),
                  .bytes = bytes.size()});
}

RankTicket LinkedGroup::AllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  CHECK(all.size() == mine.size() * size_, name_, ": ", all.size(), " for ", mine.size());
  return Enqueue({.kind = RankOperation::kAllGather,
                  .in = mine.data(),
                  .out = all.data(),
                  .bytes = mine.size()});
}

RankTicket LinkedGroup::Broadcast(std::span<std::byte> data, uint32_t root) {
  CHECK(root < size_, name_, ": root ", root);
  return Enqueue({.kind = RankOperation::kBroadcast,
                  .peer = root,
                  .in = data.data(),
                  .out = data.data(),
                  .bytes = data.size()});
}

RankTicket LinkedGroup::Send(std::span<const std::byte> data, uint32_t to) {
  CHECK(to < size_ && to != rank_, name_, ": to ", to);
  return Enqueue(
      {.kind = RankOperation::kSend, .peer = to, .in = data.data(), .bytes = data.size()});
}

RankTicket LinkedGroup::Recv(std::span<std::byte> data, uint32_t from) {
  CHECK(from < size_ && from != rank_, name_, ": from ", from);
  return Enqueue(
      {.kind = RankOperation::kRecv, .peer = from, .out = data.data(), .bytes = data.size()});
}

RankTicket LinkedGroup::Enqueue(Operation operation) {
  CHECK(operation.bytes <= message_bytes_max_, name_, ": ", operation.bytes, " bytes");
  operation.ticket = records_.Enqueued(operation.kind, operation.peer, operation.bytes);
  operation.pieces = std::max<size_t>(1, (operation.bytes + piece_bytes_ - 1) / piece_bytes_);
  operation.sent.resize(size_);
  const RankTicket ticket = operation.ticket;
  if (records_.faulted()) return ticket;
  open_.push_back(std::move(operation));
  // A fault that is found here is told by the Wait that follows.
  if (auto need = Progress(); !need.ok()) Fail(need.status());
  return ticket;
}

Status LinkedGroup::Wait(RankTicket ticket, int64_t deadline_us) {
  CHECK(ticket <= records_.progress().enqueued, name_, ": ticket ", ticket);
  while (!records_.faulted() && records_.completed() < ticket) {
    const Result<Need> need = Progress();
    Status fault;
    if (!need.ok()) {
      Fail(need.status());
      continue;
    }
    if (need->kind == Need::Kind::kPiece) fault = link_->AwaitPiece(need->member, deadline_us);
    if (need->kind == Need::Kind::kRoom) fault = link_->AwaitRoom(need->member, deadline_us);
    if (!fault.ok()) Fail(WaitFault(fault, need->member));
  }
  return records_.faulted() ? records_.fault() : OkStatus();
}

void LinkedGroup::Abort(const Status& reason) {
  const bool as_is =
      reason.code() == StatusCode::kUnavailable || reason.code() == StatusCode::kCancelled;
  Fail(as_is ? reason : Unavailable(reason.ToString()));
}

void LinkedGroup::Fail(const Status& fault) {
  if (records_.Fault(fault) && link_) link_->Close(fault);
}

Result<LinkedGroup::Need> LinkedGroup::Progress() {
  while (!open_.empty()) {
    ASSIGN_OR_RETURN(const Need need, Advance(open_.front()));
    if (need.kind != Need::Kind::kNothing) return need;
    records_.Completed(open_.front().ticket);
    open_.pop_front();
  }
  return Need{};
}

Result<LinkedGroup::Need> LinkedGroup::Advance(Operation& operation) {
  switch (operation.kind) {
    case RankOperation::kAllReduce:
    case RankOperation::kAllGather:
      return AdvanceExchange(operation);
    case RankOperation::kRecv:
      return AdvanceTake(operation, operation.peer);
    case RankOperation::kBroadcast:
      if (operation.peer != rank_) return AdvanceTake(operation, operation.peer);
      break;
    case RankOperation::kSend:
      break;
  }
  for (uint32_t member = 0; member < size_; ++member) {
    const bool receives =
        operation.kind == RankOperation::kSend ? member == operation.peer : member != rank_;
    if (!receives) continue;
    ASSIGN_OR_RETURN(const bool sent, SendPieces(operation, member, operation.pieces));
    if (!sent) return Need{Need::Kind::kRoom, member};
  }
  return Need{};
}

Result<LinkedGroup::Need> LinkedGroup::AdvanceExchange(Operation& operation) {
  while (true) {
    // Not further ahead than the queues hold: a member that only sent would wait for one that
    // only sends.
    const size_t limit =
        link_ ? std::min(operation.pieces, operation.taken + link_->queue_pieces()) : 0;
    Need need;
    for (uint32_t member = 0; member < size_; ++member) {
      if (member == rank_) continue;
      ASSIGN_OR_RETURN(const bool sent, SendPieces(operation, member, limit));
      // A sum goes where its own part stood: that must have been sent before.
      const bool blocks =
          operation.sent[member] <= operation.taken || operation.taken == operation.pieces;
      if (!sent && blocks) need = {Need::Kind::kRoom, member};
    }
    if (need.kind != Need::Kind::kNothing || operation.taken == operation.pieces) return need;
    for (uint32_t member = 0; member < size_; ++member) {
      if (member == rank_) continue;
      ASSIGN_OR_RETURN(const RankPiece* piece, ExpectPiece(operation, member));
      if (piece == nullptr && need.kind == Need::Kind::kNothing) {
        need = {Need::Kind::kPiece, member};
      }
    }
    if (need.kind != Need::Kind::kNothing) return need;
    Combine(operation);
  }
}

Result<LinkedGroup::Need> LinkedGroup::AdvanceTake(Operation& operation, uint32_t from) {
  while (operation.taken < operation.pieces) {
    ASSIGN_OR_RETURN(const RankPiece* piece, ExpectPiece(operation, from));
    if (piece == nullptr) return Need{Need::Kind::kPiece, from};
    if (piece->header.bytes > 0) {
      std::memcpy(operation.out + piece->header.offset, piece->data, piece->header.bytes);
    }
    PopFrom(operation, from);
    ++operation.taken;
  }
  return Need{};
}

Result<bool> LinkedGroup::SendPieces(Operation& operation, uint32_t to, size_t limit) {
  size_t& sent = operation.sent[to];
  for (; sent < limit; ++sent) {
    const size_t begin = PieceBegin(operation, sent);
    const size_t bytes = PieceBytes(operation, sent);
    const RankPieceHeader header = {.message = messages_sent_[to] + 1,
                                    .ticket = operation.ticket,
                                    .total_bytes = operation.bytes,
                                    .offset = begin,
                                    .bytes = static_cast<uint32_t>(bytes),
                                    .peer = operation.peer,
                                    .operation = static_cast<uint8_t>(operation.kind)};
    const std::span<const std::byte> data(operation.in + begin, bytes);
    ASSIGN_OR_RETURN(const bool room, link_->TrySend(to, header, data));
    if (!room) return false;
    if (sent + 1 == operation.pieces) ++messages_sent_[to];
  }
  return true;
}

Result<const RankPiece*> LinkedGroup::ExpectPiece(const Operation& operation, uint32_t from) {
  const RankPiece* piece = link_->Peek(from);
  if (piece == nullptr) return piece;
  const RankPieceHeader& theirs = piece->header;
  const uint32_t peer = operation.kind == RankOperation::kRecv ? rank_ : operation.peer;
  const bool same = theirs.operation == static_cast<uint8_t>(SenderKind(operation.kind)) &&
                    theirs.total_bytes == operation.bytes && theirs.peer == peer &&
                    theirs.message == messages_taken_[from] + 1 &&
                    theirs.offset == PieceBegin(operation, operation.taken) &&
                    theirs.bytes == PieceBytes(operation, operation.taken);
  if (!same) return Mismatch(operation, from, theirs);
  return piece;
}

void LinkedGroup::Combine(Operation& operation) {
  const size_t begin = PieceBegin(operation, operation.taken);
  const size_t bytes = PieceBytes(operation, operation.taken);
  for (uint32_t member = 0; member < size_; ++member) {
    const std::byte* part = member == rank_ ? operation.in + begin : link_->Peek(member)->data;
    if (operation.kind == RankOperation::kAllReduce) {
      parts_[member] = reinterpret_cast<const float*>(part);
    } else if (bytes > 0) {
      std::memmove(operation.out + member * operation.bytes + begin, part, bytes);
    }
  }
  if (operation.kind == RankOperation::kAllReduce) {
    RankTreeSum(parts_, bytes / sizeof(float), reinterpret_cast<float*>(operation.out + begin));
  }
  for (uint32_t member = 0; member < size_; ++member) {
    if (member != rank_) PopFrom(operation, member);
  }
  ++operation.taken;
}

void LinkedGroup::PopFrom(const Operation& operation, uint32_t from) {
  link_->Pop(from);
  if (operation.taken + 1 == operation.pieces) ++messages_taken_[from];
}

Status LinkedGroup::Mismatch(const Operation& operation, uint32_t from,
                             const RankPieceHeader& theirs) const {
  const auto kind = static_cast<RankOperation>(theirs.operation);
  return DataLoss(
      "rank group " + name_ + ": members are out of step: member " + std::to_string(rank_) +
      " is at " + Describe(operation.kind, operation.ticket, operation.bytes) + ", member " +
      std::to_string(from) + " at " + Describe(kind, theirs.ticket, theirs.total_bytes) +
      ", message " + std::to_string(theirs.message) + " where " +
      std::to_string(messages_taken_[from] + 1) + " was expected");
}

Status LinkedGroup::WaitFault(const Status& fault, uint32_t member) const {
  std::string context = "rank group " + name_ + ", member " + std::to_string(rank_);
  if (!open_.empty()) {
    const Operation& operation = open_.front();
    context += " at " + Describe(operation.kind, operation.ticket, operation.bytes);
  }
  return fault.WithContext(context + ", waiting for member " + std::to_string(member));
}

size_t LinkedGroup::PieceBegin(const Operation& operation, size_t piece) const {
  return std::min(piece * piece_bytes_, operation.bytes);
}

size_t LinkedGroup::PieceBytes(const Operation& operation, size_t piece) const {
  return std::min(piece_bytes_, operation.bytes - PieceBegin(operation, piece));
}

}  // namespace muselet
