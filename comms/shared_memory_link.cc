// The link between members on one host: for each ordered pair of members a ring of pieces in a
// region that all have mapped. A sender writes a piece and then the ring's count of produced ones;
// a receiver reads it in place and then writes the count of consumed ones: nothing is locked.
//
// Waits look at the count for some microseconds, then yield, then sleep on the own doorbell (a
// futex in the region), which peers ring only if they see the sleeper's mark.
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "comms/linked_group.h"
#include "comms/rank_group_makers.h"
#include "comms/rank_link.h"
#include "comms/rank_tree.h"
#include "comms/shared_memory_region.h"

namespace muselet {
namespace {

constexpr size_t kPieceBytes = 32U << 10;
constexpr size_t kQueueBytesMin = 4 * kPieceBytes;
constexpr size_t kQueueBytesMax = 4U << 20;  // of two members; more members share it
// The largest operation is rare: a quarter of it may lie in a queue, the rest follows as it is
// taken.
constexpr size_t kQueueShare = 4;
// Short, and then giving way: two members may share a core, where a spinning one only delays the
// other; alone on its core a yielding one looks again at once.
constexpr int64_t kSpinUs = 3;
constexpr int64_t kYieldUs = 200;

// Of one member; written by its peers (doorbell) and by itself. All zero at the beginning.
struct alignas(64) MemberState {
  std::atomic<uint32_t> doorbell;
  std::atomic<uint32_t> asleep;
  alignas(64) std::atomic<uint32_t> gone;
  char reason[252];  // valid once gone is set
};

// Of one ordered pair. The counts only grow.
struct RingState {
  alignas(64) std::atomic<uint64_t> produced;  // by the sender
  alignas(64) std::atomic<uint64_t> consumed;  // by the receiver
};

struct Slot {
  RankPieceHeader header;
  std::byte data[kPieceBytes];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(Slot) % 64 == 0);

struct Layout {
  uint32_t members = 0;
  size_t slots = 0;  // of one ring

  size_t rings() const { return static_cast<size_t>(members) * members; }
  size_t rings_at() const { return members * sizeof(MemberState); }
  size_t slots_at() const { return rings_at() + rings() * sizeof(RingState); }
  size_t bytes() const { return slots_at() + members * (members - 1) * slots * sizeof(Slot); }
};

Layout LayoutOf(const RankGroupSpec& spec) {
  const size_t ceiling = std::max(kQueueBytesMin, kQueueBytesMax / (spec.size - 1));
  const size_t queue = std::clamp(spec.message_bytes_max / kQueueShare, kQueueBytesMin, ceiling);
  return {.members = spec.size, .slots = (queue + kPieceBytes - 1) / kPieceBytes};
}

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class SharedMemoryLink final : public RankLink {
 public:
  SharedMemoryLink(const RankGroupSpec& spec, SharedMemoryRegion region)
      : rank_(spec.rank),
        layout_(LayoutOf(spec)),
        region_(std::move(region)),
        clock_(Clock::Real()),
        sent_(spec.size),
        taken_(spec.size),
        peeked_(spec.size) {}
  ~SharedMemoryLink() override { Close(Unavailable("its group was destroyed")); }

  std::string_view transport() const override { return "shm"; }
  size_t piece_bytes() const override { return kPieceBytes; }
  size_t queue_pieces() const override { return layout_.slots; }

  Result<bool> TrySend(uint32_t to, const RankPieceHeader& header,
                       std::span<const std::byte> data) override {
    if (!HasRoom(to)) return false;
    Slot& slot = SlotOf(rank_, to, sent_[to]);
    slot.header = header;
    if (!data.empty()) std::memcpy(slot.data, data.data(), data.size());
    // Sequentially consistent, as is the sleeper's mark: one of the two sees the other.
    Ring(rank_, to).produced.store(++sent_[to]);
    WakeIfAsleep(to);
    return true;
  }

  const RankPiece* Peek(uint32_t from) override {
    if (!HasPiece(from)) return nullptr;
    const Slot& slot = SlotOf(from, rank_, taken_[from]);
    peeked_[from] = {slot.header, slot.data};
    return &peeked_[from];
  }

  void Pop(uint32_t from) override {
    Ring(from, rank_).consumed.store(++taken_[from]);
    WakeIfAsleep(from);
  }

  Status AwaitPiece(uint32_t from, int64_t deadline_us) override {
    return Await([this, from] { return HasPiece(from); }, from, deadline_us);
  }
  Status AwaitRoom(uint32_t to, int64_t deadline_us) override {
    return Await([this, to] { return HasRoom(to); }, to, deadline_us);
  }

  void Close(const Status& reason) override {
    if (closed_.exchange(true)) return;
    MemberState& mine = Member(rank_);
    std::snprintf(mine.reason, sizeof(mine.reason), "%s", reason.ToString().c_str());
    mine.gone.store(1);
    for (uint32_t member = 0; member < layout_.members; ++member) Wake(member);
  }

 private:
  MemberState& Member(uint32_t member) {
    return reinterpret_cast<MemberState*>(region_.data())[member];
  }
  RingState& Ring(uint32_t from, uint32_t to) {
    auto* rings = reinterpret_cast<RingState*>(region_.data() + layout_.rings_at());
    return rings[from * layout_.members + to];
  }
  Slot& SlotOf(uint32_t from, uint32_t to, uint64_t piece) {
    const size_t ring = from * (layout_.members - 1) + (to < from ? to : to - 1);
    auto* slots = reinterpret_cast<Slot*>(region_.data() + layout_.slots_at());
    return slots[ring * layout_.slots + piece % layout_.slots];
  }
  bool HasPiece(uint32_t from) { return Ring(from, rank_).produced.load() > taken_[from]; }
  bool HasRoom(uint32_t to) { return sent_[to] - Ring(rank_, to).consumed.load() < layout_.slots; }

  void WakeIfAsleep(uint32_t member) {
    if (Member(member).asleep.load() != 0) Wake(member);
  }
  void Wake(uint32_t member) {
    std::atomic<uint32_t>& doorbell = Member(member).doorbell;
    doorbell.fetch_add(1);
    syscall(SYS_futex, &doorbell, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }

  // What a peer sent before it went is still taken: `arrived` is asked again after the mark.
  template <typename Condition>
  Status Await(const Condition& arrived, uint32_t peer, int64_t deadline_us) {
    const int64_t begin_us = clock_.NowUs();
    for (uint32_t turn = 0;; ++turn) {
      if (arrived()) return OkStatus();
      if (closed_.load()) return Unavailable("the group was ended here");
      if (Member(peer).gone.load() != 0) return arrived() ? OkStatus() : GoneFault(peer);
      Relax();
      if (turn % 32 != 31) continue;
      const int64_t now_us = clock_.NowUs();
      if (now_us >= deadline_us) return DeadlineExceeded("the deadline passed");
      if (now_us - begin_us < kSpinUs) continue;
      if (now_us - begin_us < kYieldUs) {
        sched_yield();
        turn = 30;
      } else {
        Sleep(arrived, peer, deadline_us - now_us);
        turn = 30;
      }
    }
  }

  template <typename Condition>
  void Sleep(const Condition& arrived, uint32_t peer, int64_t timeout_us) {
    MemberState& mine = Member(rank_);
    mine.asleep.store(1);
    const uint32_t seen = mine.doorbell.load();
    if (!arrived() && !closed_.load() && Member(peer).gone.load() == 0) {
      const timespec timeout = {.tv_sec = timeout_us / 1'000'000,
                                .tv_nsec = timeout_us % 1'000'000 * 1000};
      syscall(SYS_futex, &mine.doorbell, FUTEX_WAIT, seen, &timeout, nullptr, 0);
    }
    mine.asleep.store(0);
  }

  Status GoneFault(uint32_t peer) {
    const MemberState& state = Member(peer);
    const std::string reason(state.reason, strnlen(state.reason, sizeof(state.reason)));
    return Unavailable("member " + std::to_string(peer) + " is gone: " + reason);
  }

  const uint32_t rank_;
  const Layout layout_;
  const SharedMemoryRegion region_;
  const Clock& clock_;
  std::atomic<bool> closed_{false};
  // Of the calling thread, by member:
  std::vector<uint64_t> sent_;
  std::vector<uint64_t> taken_;
  std::vector<RankPiece> peeked_;
};

}  // namespace

Result<std::unique_ptr<RankGroup>> MakeSharedMemoryGroup(const RankGroupSpec& spec,
                                                         RankRendezvous& rendezvous) {
  RETURN_IF_ERROR(ValidateRankGroupSpec(spec));
  std::unique_ptr<RankLink> link;
  if (spec.size > 1) {
    auto region = SharedMemoryRegion::Join(spec, LayoutOf(spec).bytes(), rendezvous);
    if (!region.ok()) return region.status().WithContext("rank group " + spec.name);
    link = std::make_unique<SharedMemoryLink>(spec, std::move(*region));
  }
  return std::unique_ptr<RankGroup>(std::make_unique<LinkedGroup>(spec, "shm", std::move(link)));
}

}  // namespace muselet
