#include "node/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>

#include "base/check.h"

namespace muselet::cpu {
namespace {

constexpr uint64_t kClosed = 0xFFFFFFFFULL;
constexpr int kSpins = 4000;             // some 100 us: longer than the gaps inside a step
constexpr int kSpinsBeforeYield = 2000;  // of the caller, for tiles that others still compute

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

uint32_t NextTile(uint64_t state) {
  return static_cast<uint32_t>(state & kClosed);
}

// The first tile of a share.
uint32_t ShareBegin(uint32_t share, uint32_t tiles, uint32_t threads) {
  return static_cast<uint32_t>(uint64_t{tiles} * share / threads);
}

}  // namespace

ThreadPool::ThreadPool(uint32_t threads)
    : threads_(threads), shares_(std::make_unique<Share[]>(threads)) {
  CHECK(threads >= 1, "a pool needs the calling thread at least");
  for (uint32_t share = 0; share < threads; ++share) shares_[share].state.store(kClosed);
  workers_.reserve(threads - 1);
  try {
    for (uint32_t worker = 1; worker < threads; ++worker)
      workers_.emplace_back([this, worker] { WorkerLoop(worker); });
  } catch (...) {
    End();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  End();
}

void ThreadPool::End() {
  ending_.store(true);
  job_.fetch_add(1);
  job_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

uint32_t ThreadPool::AvailableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0)
    return std::max(1U, std::thread::hardware_concurrency());
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&set)));
}

void ThreadPool::Run(uint32_t tiles, TileFunction function, const void* context) {
  if (tiles == 0) return;
  if (tiles == 1 || workers_.empty()) {
    for (uint32_t tile = 0; tile < tiles; ++tile) function(context, tile, 0);
    return;
  }
  // A worker that still looks at the previous job sees either its exhausted shares or closed ones;
  // it cannot take a tile before its share is opened below.
  const uint64_t generation = (shares_[0].state.load(std::memory_order_relaxed) >> 32) + 1;
  for (uint32_t share = 0; share < threads_; ++share)
    shares_[share].state.store(generation << 32 | kClosed);
  function_.store(function, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  tiles_.store(tiles, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  for (uint32_t share = 0; share < threads_; ++share)
    shares_[share].state.store((generation + 1) << 32 | ShareBegin(share, tiles, threads_));
  job_.fetch_add(1);
  if (parked_.load() > 0) job_.notify_all();
  ComputeTiles(0);
  for (int spins = 0; done_.load(std::memory_order_acquire) != tiles; ++spins) {
    if (spins < kSpinsBeforeYield) {
      Pause();
    } else {
      sched_yield();
    }
  }
}

void ThreadPool::ComputeTiles(uint32_t worker) {
  for (uint32_t i = 0; i < threads_; ++i) ComputeShare((worker + i) % threads_, worker);
}

void ThreadPool::ComputeShare(uint32_t share, uint32_t worker) {
  std::atomic<uint64_t>& next = shares_[share].state;
  uint64_t state = next.load();
  while (true) {
    const TileFunction function = function_.load(std::memory_order_acquire);
    const void* context = context_.load(std::memory_order_acquire);
    const uint32_t tiles = tiles_.load(std::memory_order_acquire);
    const uint32_t tile = NextTile(state);
    if (tile >= ShareBegin(share + 1, tiles, threads_)) return;
    if (!next.compare_exchange_weak(state, state + 1)) continue;
    function(context, tile, worker);
    done_.fetch_add(1, std::memory_order_acq_rel);
    state = next.load();
  }
}

bool ThreadPool::AwaitJob(uint32_t seen) {
  for (int spins = 0; spins < kSpins; ++spins) {
    if (job_.load(std::memory_order_acquire) != seen) return !ending_.load();
    Pause();
  }
  parked_.fetch_add(1);
  // A job published before parked_ was seen is noticed here; one published later wakes us.
  job_.wait(seen);
  parked_.fetch_sub(1);
  return !ending_.load();
}

void ThreadPool::WorkerLoop(uint32_t worker) {
  for (uint32_t seen = 0; AwaitJob(seen);) {
    seen = job_.load();
    ComputeTiles(worker);
  }
}

}  // namespace muselet::cpu
