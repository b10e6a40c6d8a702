// The link between members on any hosts: Gloo's pairs over TCP. For each peer a ring of send
// buffers and a ring of receive buffers that are posted beforehand, so that a piece is on its way
// when it is given, whether the receiver asks for it yet or not. Gloo's exceptions end here.
//
// Gloo's waits end its context when they time out, which suits us: a group is of no use after its
// deadline. It cannot be asked without waiting whether a piece has come or gone; what is known of
// that is what was waited for.
//
// Gloo takes whoever connects for a member and ends the process at words that it does not know. So
// it gets connections that were made and vetted before (comms/member_connections); what its pairs
// listen on is closed as soon as they are made, and before anything is read from it.
#include <gloo/transport/tcp/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/tcp/pair.h>
#include <gloo/transport/unbound_buffer.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "comms/linked_group.h"
#include "comms/member_connections.h"
#include "comms/rank_group_makers.h"
#include "comms/rank_link.h"

namespace muselet {
namespace {

constexpr size_t kPieceBytesMin = 4U << 10;
constexpr size_t kPieceBytesMax = 128U << 10;
constexpr size_t kQueuePieces = 16;
constexpr int64_t kFlushUs = 500'000;  // for pieces under way when a group is destroyed

namespace tcp = gloo::transport::tcp;

// A pair over a connection that is there already. Whatever goes wrong on Gloo's thread is the end
// of the pair, not of the process.
class VettedPair final : public tcp::Pair {
 public:
  VettedPair(tcp::Context* context, tcp::Device* device, int rank,
             std::chrono::milliseconds timeout)
      : Pair(context, device, rank, timeout) {
    const std::lock_guard lock(m_);
    Forget();
    state_ = INITIALIZING;
  }

  // Takes the socket over.
  void Adopt(int socket) {
    const std::lock_guard lock(m_);
    fd_ = socket;
    handleConnected();
  }

  void handleEvents(int events) override {
    try {
      Pair::handleEvents(events);
    } catch (const std::exception& fault) {
      const std::lock_guard lock(m_);
      if (ex_ == nullptr && state_ != CLOSED) signalException(fault.what());
    }
  }

 private:
  void Forget() {
    if (fd_ < 0) return;
    device_->unregisterDescriptor(fd_, this);
    ::close(fd_);
    fd_ = -1;
  }
};

class VettedContext final : public tcp::Context {
 public:
  using Context::Context;
  std::unique_ptr<gloo::transport::Pair>& createPair(int rank) override {
    pairs_[rank] = std::make_unique<VettedPair>(this, device_.get(), rank, getTimeout());
    return pairs_[rank];
  }
};

// Memory of one piece, and Gloo's hold on it.
struct Slot {
  std::vector<std::byte> memory;
  std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
};

struct Peer {
  std::vector<Slot> sends, receives;
  uint64_t sent = 0;      // pieces given to Gloo
  uint64_t departed = 0;  // of them, known to have left
  uint64_t taken = 0;     // pieces popped
  bool here = false;      // the piece after the taken ones has come
  RankPiece peeked;
};

std::chrono::milliseconds TimeLeft(int64_t deadline_us) {
  const int64_t left_us = deadline_us - Clock::Real().NowUs();
  return std::chrono::milliseconds(std::max<int64_t>(0, (left_us + 999) / 1000));
}

class GlooLink final : public RankLink {
 public:
  explicit GlooLink(const RankGroupSpec& spec)
      : spec_(spec),
        piece_bytes_(
            std::clamp(spec.message_bytes_max & ~size_t{3}, kPieceBytesMin, kPieceBytesMax)),
        peers_(spec.size) {}
  ~GlooLink() override;

  std::string_view transport() const override { return "gloo"; }
  size_t piece_bytes() const override { return piece_bytes_; }
  size_t queue_pieces() const override { return kQueuePieces; }

  // Once, before anything else; also ends when the rendezvous' epoch does. After a fault the link
  // is of no use.
  Status Connect(const std::string& host, RankRendezvous& rendezvous);

  Result<bool> TrySend(uint32_t to, const RankPieceHeader& header,
                       std::span<const std::byte> data) override;
  const RankPiece* Peek(uint32_t from) override;
  void Pop(uint32_t from) override;
  Status AwaitPiece(uint32_t from, int64_t deadline_us) override;
  Status AwaitRoom(uint32_t to, int64_t deadline_us) override;
  void Close(const Status& reason) override;

 private:
  // Runs a call into Gloo and gives its exception as a fault of that member.
  Status Guard(uint32_t member, int64_t deadline_us, const std::function<bool()>& call);
  Status MakePairs(const std::string& host, MemberConnections connections);
  Status MakeBuffers();
  void ClosePairs();
  void PostReceive(uint32_t from, uint64_t piece);

  const RankGroupSpec spec_;
  const size_t piece_bytes_;
  // The buffers' destructors come before the pairs', those before the device's.
  std::shared_ptr<tcp::Device> device_;
  std::shared_ptr<VettedContext> context_;
  std::vector<Peer> peers_;  // the own one is empty
  std::atomic<bool> closed_{false};
  std::atomic<bool> connected_{false};  // the buffers are made
};

GlooLink::~GlooLink() {
  // Pieces under way are still for the peers, unless this is the end after a fault.
  const int64_t until_us = Clock::Real().NowUs() + kFlushUs;
  for (uint32_t member = 0; connected_ && member < spec_.size; ++member) {
    Peer& peer = peers_[member];
    while (!closed_.load() && peer.departed < peer.sent) {
      auto& buffer = peer.sends[peer.departed % kQueuePieces].buffer;
      const Status left =
          Guard(member, until_us, [&] { return buffer->waitSend(nullptr, TimeLeft(until_us)); });
      if (!left.ok()) break;
      ++peer.departed;
    }
  }
  // Pairs first: their thread must not find buffers that are going.
  for (uint32_t member = 0; context_ && member < spec_.size; ++member) {
    if (member != spec_.rank) context_->getPair(static_cast<int>(member)).reset();
  }
}

Status GlooLink::Guard(uint32_t member, int64_t deadline_us, const std::function<bool()>& call) {
  try {
    if (closed_.load()) return Unavailable("the group was ended here");
    if (call()) return OkStatus();
    return Unavailable("the group was ended here");
  } catch (const std::exception& fault) {
    if (Clock::Real().NowUs() >= deadline_us) return DeadlineExceeded("the deadline passed");
    return Unavailable("member " + std::to_string(member) + " is gone: " + fault.what());
  }
}

Status GlooLink::Connect(const std::string& host, RankRendezvous& rendezvous) {
  ASSIGN_OR_RETURN(MemberConnections connections, MemberConnections::Make(spec_, host, rendezvous));
  RETURN_IF_ERROR(MakePairs(host, std::move(connections)));
  return MakeBuffers();
}

Status GlooLink::MakePairs(const std::string& host, MemberConnections connections) {
  try {
    tcp::attr address;
    address.hostname = host;
    device_ = std::make_shared<tcp::Device>(tcp::CreateDeviceAttr(address));
    const int rank = static_cast<int>(spec_.rank);
    context_ = std::make_shared<VettedContext>(device_, rank, static_cast<int>(spec_.size));
    context_->setTimeout(TimeLeft(spec_.deadline_us) + std::chrono::milliseconds(1));
    for (uint32_t member = 0; member < spec_.size; ++member) {
      if (member == spec_.rank) continue;
      auto& pair = context_->createPair(static_cast<int>(member));
      static_cast<VettedPair&>(*pair).Adopt(connections.Release(member));
    }
  } catch (const std::exception& fault) {
    return Unavailable("Gloo cannot use " + host + ": " + fault.what());
  }
  return OkStatus();
}

Status GlooLink::MakeBuffers() {
  for (uint32_t member = 0; member < spec_.size; ++member) {
    if (member == spec_.rank) continue;
    RETURN_IF_ERROR(Guard(member, spec_.deadline_us, [&] {
      Peer& peer = peers_[member];
      for (auto* slots : {&peer.sends, &peer.receives}) {
        slots->resize(kQueuePieces);
        for (Slot& slot : *slots) {
          slot.memory.resize(sizeof(RankPieceHeader) + piece_bytes_);
          slot.buffer = context_->createUnboundBuffer(slot.memory.data(), slot.memory.size());
        }
      }
      for (uint64_t piece = 0; piece < kQueuePieces; ++piece) PostReceive(member, piece);
      return true;
    }));
  }
  connected_ = true;
  return OkStatus();
}

void GlooLink::PostReceive(uint32_t from, uint64_t piece) {
  peers_[from].receives[piece % kQueuePieces].buffer->recv(static_cast<int>(from), piece);
}

Result<bool> GlooLink::TrySend(uint32_t to, const RankPieceHeader& header,
                               std::span<const std::byte> data) {
  Peer& peer = peers_[to];
  // Pieces may have left since, unknown until AwaitRoom asks for them.
  if (peer.sent - peer.departed == kQueuePieces) return false;
  Slot& slot = peer.sends[peer.sent % kQueuePieces];
  std::memcpy(slot.memory.data(), &header, sizeof(header));
  if (!data.empty()) std::memcpy(slot.memory.data() + sizeof(header), data.data(), data.size());
  RETURN_IF_ERROR(Guard(to, INT64_MAX, [&] {
    slot.buffer->send(static_cast<int>(to), peer.sent, 0, sizeof(header) + data.size());
    return true;
  }));
  ++peer.sent;
  return true;
}

Status GlooLink::AwaitRoom(uint32_t to, int64_t deadline_us) {
  Peer& peer = peers_[to];
  if (peer.sent - peer.departed < kQueuePieces) return OkStatus();
  auto& buffer = peer.sends[peer.departed % kQueuePieces].buffer;
  RETURN_IF_ERROR(
      Guard(to, deadline_us, [&] { return buffer->waitSend(nullptr, TimeLeft(deadline_us)); }));
  ++peer.departed;
  return OkStatus();
}

Status GlooLink::AwaitPiece(uint32_t from, int64_t deadline_us) {
  Peer& peer = peers_[from];
  if (peer.here) return OkStatus();
  Slot& slot = peer.receives[peer.taken % kQueuePieces];
  RETURN_IF_ERROR(Guard(from, deadline_us,
                        [&] { return slot.buffer->waitRecv(nullptr, TimeLeft(deadline_us)); }));
  std::memcpy(&peer.peeked.header, slot.memory.data(), sizeof(RankPieceHeader));
  peer.peeked.data = slot.memory.data() + sizeof(RankPieceHeader);
  peer.here = true;
  return OkStatus();
}

const RankPiece* GlooLink::Peek(uint32_t from) {
  return peers_[from].here ? &peers_[from].peeked : nullptr;
}

void GlooLink::Pop(uint32_t from) {
  Peer& peer = peers_[from];
  peer.here = false;
  ++peer.taken;
  // A fault here is met again by whoever waits for that piece.
  static_cast<void>(Guard(from, INT64_MAX, [&] {
    PostReceive(from, peer.taken - 1 + kQueuePieces);
    return true;
  }));
}

void GlooLink::ClosePairs() {
  for (uint32_t member = 0; member < spec_.size; ++member) {
    if (member == spec_.rank) continue;
    try {
      context_->getPair(static_cast<int>(member))->close();
    } catch (const std::exception&) {
      // It was closed before.
      continue;
    }
  }
}

void GlooLink::Close(const Status& /*reason*/) {
  if (closed_.exchange(true) || !connected_) return;
  // The mark first, then the wakes: a wait that begins between them ends at once.
  for (Peer& peer : peers_) {
    for (Slot& slot : peer.sends) slot.buffer->abortWaitSend();
    for (Slot& slot : peer.receives) slot.buffer->abortWaitRecv();
  }
  ClosePairs();
}

}  // namespace

Result<std::unique_ptr<RankGroup>> MakeGlooGroup(const RankGroupSpec& spec, const std::string& host,
                                                 RankRendezvous& rendezvous) {
  RETURN_IF_ERROR(ValidateRankGroupSpec(spec));
  std::unique_ptr<GlooLink> link;
  if (spec.size > 1) {
    link = std::make_unique<GlooLink>(spec);
    const Status connected = link->Connect(host, rendezvous);
    if (!connected.ok()) return connected.WithContext("rank group " + spec.name);
  }
  return std::unique_ptr<RankGroup>(std::make_unique<LinkedGroup>(spec, "gloo", std::move(link)));
}

}  // namespace muselet
