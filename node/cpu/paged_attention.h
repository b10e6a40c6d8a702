// Attention of the CPU backend over the paged cache: how the rows of a step are grouped and shared
// out over the threads, and how the chunks of positions are merged. What is computed for one chunk
// stands in kernels.h.
#pragma once

#include <vector>

#include "base/device/ops.h"
#include "node/cpu/attention_scratch.h"
#include "node/cpu/kernels.h"
#include "node/cpu/thread_pool.h"

namespace muselet::cpu {

// Of the chunks of a step, which are merged later.
inline constexpr size_t kPartialBytesMax = size_t{16} << 20;

// Key/value head `head` of a layer's cache.
KvHeadView HeadView(const PagedKv& cache, uint32_t head);

// Neighbouring rows of one sequence are computed together, so that its keys and values are read
// and converted once for all of them; the row's result is that of the row alone. One thread at a
// time calls it; it allocates only for a step larger than all before.
class PagedAttention {
 public:
  // Ops::Attention on the pool's threads.
  void Attend(const Kernels& kernels, ThreadPool& pool, Rows q, const StepRows& rows,
              const PagedKv& cache, const AttentionSpec& spec, Rows out);

  // That it works in: what the threads need, and at most kPartialBytesMax.
  size_t scratch_bytes() const { return scratch_.bytes(); }

 private:
  // Rows of consecutive positions in one sequence.
  struct Group {
    uint32_t row = 0;  // the first
    uint32_t count = 0;
  };
  struct Task;
  struct Unit;

  void FormGroups(const Task& task, uint32_t threads, uint32_t chunks);
  uint32_t Units(const Task& task) const;
  uint32_t LanesMax(const Task& task) const;
  size_t PartialBytes(const Task& task) const;
  KeysAhead KeysAfter(const Task& task, uint32_t index, uint32_t chunk) const;
  void AttendUnit(const Task& task, uint32_t index, const AttentionScratch::Worker& scratch) const;
  void AttendByChunks(const Task& task, ThreadPool& pool);

  std::vector<Group> groups_;
  AttentionScratch scratch_;
};

}  // namespace muselet::cpu
