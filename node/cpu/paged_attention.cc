#include "node/cpu/paged_attention.h"

#include <algorithm>

#include "base/check.h"

namespace muselet::cpu {
namespace {

constexpr uint32_t kRowsMax = 64;        // of a group
constexpr uint32_t kLanesWanted = 96;    // of a group: converting is then a small part of the work
constexpr uint32_t kUnitsPerThread = 8;  // so many keep the threads busy to the end

// Rows that are computed together, whatever the step holds.
uint32_t GroupRowsMax(uint32_t queries) {
  return std::clamp(kLanesWanted / queries, 1U, kRowsMax);
}

void Normalise(const float* values, const float* sum, uint32_t queries, uint32_t head_dim,
               float* out) {
  for (uint32_t i = 0; i < queries; ++i, values += head_dim, out += head_dim)
    for (uint32_t d = 0; d < head_dim; ++d) out[d] = values[d] / sum[i];
}

}  // namespace

KvHeadView HeadView(const PagedKv& cache, uint32_t head) {
  const KvShape& shape = cache.shape;
  const size_t side_bytes =
      size_t{shape.kv_heads} * shape.head_dim * kKvBlockTokens * Traits(shape.dtype).block_bytes;
  const size_t head_bytes = side_bytes / shape.kv_heads;
  return {cache.blocks,
          2 * side_bytes,
          head * head_bytes,
          side_bytes + head * head_bytes,
          shape.dtype == DType::kF16,
          shape.head_dim};
}

struct PagedAttention::Task {
  const Kernels& kernels;
  Rows q;
  const StepRows& rows;
  const PagedKv& cache;
  const AttentionSpec& spec;
  Rows out;
  uint32_t queries = 0;     // query heads that share a key/value head
  uint32_t chunks_max = 1;  // chunks of positions up to the furthest row

  // The positions that a row sees.
  PositionRange Seen(uint32_t row) const {
    const uint32_t end = rows.places[row].position + 1;
    const bool windowed = spec.window_tokens > 0 && end > spec.window_tokens;
    return {windowed ? end - spec.window_tokens : 0, end};
  }
};

// One key/value head of one group.
struct PagedAttention::Unit {
  Unit(const Task& of, const std::vector<Group>& groups, uint32_t index)
      : task(of),
        group(groups[index / of.cache.shape.kv_heads]),
        head(index % of.cache.shape.kv_heads) {}

  uint32_t end_row() const { return group.row + group.count; }
  // Chunks [first, last] hold what the group's rows see.
  uint32_t first_chunk() const { return task.Seen(group.row).begin / kAttentionChunk; }
  uint32_t last_chunk() const { return (task.Seen(end_row() - 1).end - 1) / kAttentionChunk; }
  // Of the query heads that share the key/value head, within a row of q or out.
  size_t offset() const { return size_t{head} * task.queries * task.cache.shape.head_dim; }
  const uint32_t* table() const {
    return task.rows.tables.data() + task.rows.places[group.row].table_begin;
  }
  // The part of a chunk that a row sees; may be empty.
  PositionRange SeenOf(uint32_t row, uint32_t chunk) const {
    const PositionRange seen = task.Seen(row);
    return {std::max(seen.begin, chunk * kAttentionChunk),
            std::min(seen.end, (chunk + 1) * kAttentionChunk)};
  }
  KeysAhead KeysOf(uint32_t chunk) const {
    return {table(),
            {SeenOf(group.row, chunk).begin, SeenOf(end_row() - 1, chunk).end},
            HeadView(task.cache, head).key_offset};
  }

  // The chunk, for the rows that see some of it. The results of the group's row r go to lane
  // r * queries and on.
  void AttendChunk(uint32_t chunk, const KeysAhead& ahead, const AttentionScratch::Worker& scratch,
                   const AttentionPartial& partial) const {
    PositionRange seen[kRowsMax];
    uint32_t begin = group.row, rows = 0;
    for (uint32_t row = group.row; row < end_row(); ++row) {
      seen[rows] = SeenOf(row, chunk);
      if (seen[rows].begin < seen[rows].end) {
        ++rows;
      } else if (rows == 0) {
        ++begin;
      }
    }
    const size_t lane = size_t{begin - group.row} * task.queries;
    task.kernels.attention_chunk({HeadView(task.cache, head), table(), seen, rows, task.queries,
                                  task.q.row(begin) + offset(), task.q.width, task.spec.scale,
                                  scratch.scores, scratch.converted, partial.maximum + lane,
                                  partial.sum + lane,
                                  partial.values + lane * task.cache.shape.head_dim, ahead});
  }

  // Folds what the group's row `row` has in `partial` into its running total.
  void Merge(uint32_t row, const AttentionPartial& total, const AttentionPartial& partial) const {
    const uint32_t head_dim = task.cache.shape.head_dim;
    const uint32_t begin = (row - group.row) * task.queries;
    for (uint32_t lane = begin; lane < begin + task.queries; ++lane)
      task.kernels.attention_merge({total.maximum + lane, total.sum + lane,
                                    total.values + size_t{lane} * head_dim, partial.maximum[lane],
                                    partial.sum[lane], partial.values + size_t{lane} * head_dim,
                                    head_dim});
  }

  // Starts the row's running total with `partial`.
  void Begin(uint32_t row, const AttentionPartial& total, const AttentionPartial& partial) const {
    const uint32_t head_dim = task.cache.shape.head_dim;
    const size_t lane = size_t{row - group.row} * task.queries;
    std::copy_n(partial.maximum + lane, task.queries, total.maximum + lane);
    std::copy_n(partial.sum + lane, task.queries, total.sum + lane);
    std::copy_n(partial.values + lane * head_dim, size_t{task.queries} * head_dim,
                total.values + lane * head_dim);
  }

  void Finish(uint32_t row, const AttentionPartial& total) const {
    const uint32_t head_dim = task.cache.shape.head_dim;
    const size_t lane = size_t{row - group.row} * task.queries;
    Normalise(total.values + lane * head_dim, total.sum + lane, task.queries, head_dim,
              task.out.row(row) + offset());
  }

  const Task& task;
  const Group& group;
  const uint32_t head;
};

void PagedAttention::Attend(const Kernels& kernels, ThreadPool& pool, Rows q, const StepRows& rows,
                            const PagedKv& cache, const AttentionSpec& spec, Rows out) {
  const KvShape& shape = cache.shape;
  CHECK(spec.query_heads % shape.kv_heads == 0 && q.width == spec.query_heads * shape.head_dim &&
            out.width == q.width,
        "attention: shapes differ");
  Task task = {kernels, q, rows, cache, spec, out, spec.query_heads / shape.kv_heads};
  for (const RowPlace& place : rows.places)
    task.chunks_max = std::max(task.chunks_max, place.position / kAttentionChunk + 1);
  scratch_.Reserve(pool.threads(), GroupRowsMax(task.queries) * task.queries, shape.head_dim);
  FormGroups(task, pool.threads(), task.chunks_max);
  if (task.chunks_max > 1 && Units(task) < pool.threads() * kUnitsPerThread) {
    if (PartialBytes(task) <= kPartialBytesMax) return AttendByChunks(task, pool);
    FormGroups(task, pool.threads(), 1);  // smaller ones, for there are fewer parts to share out
  }
  pool.ParallelFor(Units(task), [&](uint32_t index, uint32_t worker) {
    AttendUnit(task, index, scratch_.worker(worker));
  });
}

uint32_t PagedAttention::Units(const Task& task) const {
  return static_cast<uint32_t>(groups_.size()) * task.cache.shape.kv_heads;
}

uint32_t PagedAttention::LanesMax(const Task& task) const {
  uint32_t rows_max = 1;
  for (const Group& group : groups_) rows_max = std::max(rows_max, group.count);
  return rows_max * task.queries;
}

// What AttendByChunks needs: many rows at a far position would need gigabytes.
size_t PagedAttention::PartialBytes(const Task& task) const {
  return scratch_.PartialBytes(size_t{Units(task)} * task.chunks_max, LanesMax(task));
}

// Groups as large as leaves enough of them, or of `chunks` parts of each, for all threads.
void PagedAttention::FormGroups(const Task& task, uint32_t threads, uint32_t chunks) {
  const size_t parts = size_t{task.q.count} * task.cache.shape.kv_heads * chunks;
  const auto rows_max = static_cast<uint32_t>(std::clamp<size_t>(
      parts / (size_t{threads} * kUnitsPerThread), 1, GroupRowsMax(task.queries)));
  groups_.clear();
  groups_.reserve(task.q.count);
  for (uint32_t row = 0; row < task.q.count; ++row) {
    const RowPlace& place = task.rows.places[row];
    if (row > 0 && groups_.back().count < rows_max) {
      const RowPlace& before = task.rows.places[row - 1];
      if (before.table_begin == place.table_begin && before.position + 1 == place.position) {
        ++groups_.back().count;
        continue;
      }
    }
    groups_.push_back({row, 1});
  }
}

// What is read after a chunk of a unit, if the same thread goes on to the next unit.
KeysAhead PagedAttention::KeysAfter(const Task& task, uint32_t index, uint32_t chunk) const {
  const Unit unit(task, groups_, index);
  if (chunk < unit.last_chunk()) return unit.KeysOf(chunk + 1);
  if (index + 1 == Units(task)) return {};
  const Unit next(task, groups_, index + 1);
  return next.KeysOf(next.first_chunk());
}

// One unit, chunk after chunk.
void PagedAttention::AttendUnit(const Task& task, uint32_t index,
                                const AttentionScratch::Worker& scratch) const {
  const Unit unit(task, groups_, index);
  const uint32_t first = unit.first_chunk(), last = unit.last_chunk();
  for (uint32_t chunk = first; chunk <= last; ++chunk) {
    unit.AttendChunk(chunk, KeysAfter(task, index, chunk), scratch,
                     chunk == first ? scratch.total : scratch.partial);
    if (chunk == first) continue;
    for (uint32_t row = unit.group.row; row < unit.end_row(); ++row) {
      const PositionRange seen = unit.SeenOf(row, chunk);
      if (seen.begin >= seen.end) continue;
      if (task.Seen(row).begin / kAttentionChunk == chunk) {
        unit.Begin(row, scratch.total, scratch.partial);
      } else {
        unit.Merge(row, scratch.total, scratch.partial);
      }
    }
  }
  for (uint32_t row = unit.group.row; row < unit.end_row(); ++row) unit.Finish(row, scratch.total);
}

// Few units with long contexts: the chunks are shared out, then merged in the same order.
void PagedAttention::AttendByChunks(const Task& task, ThreadPool& pool) {
  const uint32_t units = Units(task);
  scratch_.ReservePartials(size_t{units} * task.chunks_max, LanesMax(task));
  pool.ParallelFor(units * task.chunks_max, [&](uint32_t tile, uint32_t worker) {
    const Unit unit(task, groups_, tile / task.chunks_max);
    const uint32_t chunk = tile % task.chunks_max;
    if (chunk < unit.first_chunk() || chunk > unit.last_chunk()) return;
    unit.AttendChunk(chunk, KeysAfter(task, tile / task.chunks_max, chunk), scratch_.worker(worker),
                     scratch_.partial(tile));
  });
  for (uint32_t index = 0; index < units; ++index) {
    const Unit unit(task, groups_, index);
    for (uint32_t row = unit.group.row; row < unit.end_row(); ++row) {
      const PositionRange seen = task.Seen(row);
      const size_t tile = size_t{index} * task.chunks_max;
      const uint32_t first = seen.begin / kAttentionChunk;
      const AttentionPartial total = scratch_.partial(tile + first);
      for (uint32_t chunk = first + 1; chunk <= (seen.end - 1) / kAttentionChunk; ++chunk)
        unit.Merge(row, total, scratch_.partial(tile + chunk));
      unit.Finish(row, total);
    }
  }
}

}  // namespace muselet::cpu
