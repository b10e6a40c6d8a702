// The compute threads of a replica on the CPU. The calling thread computes too. Each thread takes
// the tiles of its own contiguous share, so that it reads the weights as one stream, then those
// that others have left; it spins briefly when there is nothing to take, then parks: a busy
// neighbour on a core costs a tile, not the step, and nothing runs when idle. Which thread computes
// a tile never changes a result.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace muselet::cpu {

class ThreadPool {
 public:
  // `threads` computing threads, the caller included: threads - 1 are started. Throws
  // std::system_error, with none left running, if the system refuses one. REQUIRES: >= 1.
  explicit ThreadPool(uint32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  uint32_t threads() const { return threads_; }

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

  // One thread's share of the current job: generation << 32 | next tile. A tile is taken by one
  // compare and swap, which fails if the job has changed meanwhile. Between jobs the next tile is
  // kClosed.
  struct alignas(64) Share {
    std::atomic<uint64_t> state;
  };

  void Run(uint32_t tiles, TileFunction function, const void* context);
  void WorkerLoop(uint32_t worker);
  // Ends and joins the workers.
  void End();
  // Takes and computes tiles of the current job until none is left, its own share first.
  void ComputeTiles(uint32_t worker);
  void ComputeShare(uint32_t share, uint32_t worker);
  // Waits until the job's number is no longer `seen`; false when the pool ends.
  bool AwaitJob(uint32_t seen);

  const uint32_t threads_;
  const std::unique_ptr<Share[]> shares_;
  std::atomic<TileFunction> function_ = nullptr;
  std::atomic<const void*> context_ = nullptr;
  std::atomic<uint32_t> tiles_ = 0;
  alignas(64) std::atomic<uint32_t> done_ = 0;

  // Counts the jobs; what parked workers wait on.
  alignas(64) std::atomic<uint32_t> job_ = 0;
  std::atomic<uint32_t> parked_ = 0;
  std::atomic<bool> ending_ = false;

  std::vector<std::thread> workers_;
};

}  // namespace muselet::cpu
