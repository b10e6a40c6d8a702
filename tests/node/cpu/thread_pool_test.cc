#include "node/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <numeric>
#include <system_error>

namespace muselet::cpu {
namespace {

TEST(ThreadPoolTest, ComputesEveryTileOnce) {
  for (const uint32_t threads : {1U, 2U, 5U}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (uint32_t tiles = 0; tiles < 100; ++tiles) {
      std::vector<std::atomic<int>> counts(tiles);
      pool.ParallelFor(tiles, [&](uint32_t tile, uint32_t worker) {
        ASSERT_LT(worker, threads);
        counts[tile].fetch_add(1);
      });
      for (uint32_t tile = 0; tile < tiles; ++tile) ASSERT_EQ(counts[tile].load(), 1);
    }
  }
}

// Plain memory written by one job is read by the next: what the pool must order.
TEST(ThreadPoolTest, OneJobSeesWhatTheLastOneWrote) {
  ThreadPool pool(3);
  std::vector<uint64_t> values(64, 0);
  for (uint64_t round = 1; round <= 2000; ++round) {
    pool.ParallelFor(64, [&](uint32_t tile, uint32_t) { values[63 - tile] += round; });
  }
  for (const uint64_t value : values) ASSERT_EQ(value, 2000U * 2001U / 2);
}

TEST(ThreadPoolTest, NoThreadIsInTwoTilesAtOnce) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  for (int round = 0; round < 200; ++round) {
    pool.ParallelFor(16, [&](uint32_t, uint32_t worker) {
      ASSERT_EQ(inside[worker].fetch_add(1), 0);
      ASSERT_EQ(inside[worker].fetch_sub(1), 1);
    });
  }
}

TEST(ThreadPoolTest, ParksWhenIdle) {
  ThreadPool pool(3);
  pool.ParallelFor(8, [](uint32_t, uint32_t) {});
  // Workers spin for a moment after a job, then stand still.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (pool.parked() < 2 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  EXPECT_EQ(pool.parked(), 2U);
  // And they come back.
  std::atomic<int> count = 0;
  pool.ParallelFor(100, [&](uint32_t, uint32_t) { count.fetch_add(1); });
  EXPECT_EQ(count.load(), 100);
}

// Sanitizers need the address space that this test takes away.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Takes the address space that thread stacks need; in a process of its own.
void ExitWithZeroIfTooManyThreadsThrow() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  constexpr uint64_t kRoom = 100 << 20;  // for a dozen stacks of 8 MiB, or none at all
  const rlim_t bytes = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + kRoom;
  const rlimit limit{bytes, bytes};
  if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(3);
  try {
    const ThreadPool pool(1024);
  } catch (const std::system_error&) {
    _exit(0);
  }
  _exit(1);
}

TEST(ThreadPoolTest, JoinsWhatItHasStartedIfTheSystemRefusesAThread) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(ExitWithZeroIfTooManyThreadsThrow(), ::testing::ExitedWithCode(0), "");
}
#endif

}  // namespace
}  // namespace muselet::cpu
