// The compute threads of a replica on the CPU. The calling thread computes too; workers take tiles
// through an atomic counter, spin briefly when there is nothing to take, then park: a busy
// neighbour on a core costs a tile, not the step, and nothing runs when idle. Which thread computes
// a tile never changes a result.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace muselet::cpu {

class ThreadPool {
 public:
  // `threads` computing threads, the caller included: threads - 1 are started. REQUIRES: >= 1.
  explicit ThreadPool(uint32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  uint32_t threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }

  // Calls body(tile, worker) for every tile in [0, tiles), in any order, on any of the threads;
  // `worker` in [0, threads()) names the thread, so that scratch memory can be a worker's own.
  // Returns when all are done. Not reentrant; one calling thread at a time.
  template <typename Body>
  void ParallelFor(uint32_t tiles, const Body& body) {
    Run(
        tiles,
        [](const void* context, uint32_t tile, uint32_t worker) {
          (*static_cast<const Body*>(context))(tile, worker);
        },
        &body);
  }

  // Workers that stand still until the next job. Any thread.
  uint32_t parked() const { return parked_.load(); }

  // The CPUs that this process may run on; at least 1.
  static uint32_t AvailableCpus();

 private:
  using TileFunction = void (*)(const void* context, uint32_t tile, uint32_t worker);

  void Run(uint32_t tiles, TileFunction function, const void* context);
  void WorkerLoop(uint32_t worker);
  // Takes and computes tiles of the current job until none is left.
  void ComputeTiles(uint32_t worker);
  // Waits until a job with free tiles may be there; false when the pool ends.
  bool AwaitJob();

  // The current job. `state_` = generation << 32 | next tile; a tile is taken by one compare and
  // swap, which fails if the job has changed meanwhile. Between jobs the next tile is kClosed.
  std::atomic<uint64_t> state_;
  std::atomic<TileFunction> function_ = nullptr;
  std::atomic<const void*> context_ = nullptr;
  std::atomic<uint32_t> tiles_ = 0;
  std::atomic<uint32_t> done_ = 0;

  // Parking.
  std::atomic<uint32_t> parked_ = 0;
  std::atomic<uint32_t> wakeups_ = 0;
  std::atomic<bool> ending_ = false;

  std::vector<std::thread> workers_;
};

}  // namespace muselet::cpu
