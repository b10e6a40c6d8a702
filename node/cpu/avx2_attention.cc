// Attention over one chunk of positions: 8 positions are the 8 lanes of a score vector, 8 elements
// of a head those of a value vector. Three query heads times four vectors are summed at a time: as
// many sums in flight as there are registers for. One row alone reads the cache as it is, and has
// the lines it needs next fetched meanwhile; several rows share keys and values converted once.
#if defined(__AVX2__)

#include "node/cpu/avx2.h"

namespace muselet::cpu::avx2 {
namespace {

constexpr int kQueriesAtOnce = 3;
constexpr int kQueriesDirect = 4;  // of one row; more are worth a conversion
constexpr uint32_t kLineBytes = 64;
constexpr float kMinusInfinity = -__builtin_inff();

template <bool kHalf>
constexpr uint32_t kElementBytes = kHalf ? 2 : 4;

template <bool kHalf>
inline __m256 LoadCache(const std::byte* at) {
  if constexpr (kHalf) return LoadHalves(at);
  return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
}

inline const std::byte* BlockOf(const AttentionChunk& chunk, uint32_t position) {
  return chunk.kv.blocks + chunk.table[position / kKvBlockTokens] * chunk.kv.block_bytes;
}

inline uint32_t Min(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}
inline uint32_t Max(uint32_t a, uint32_t b) {
  return a < b ? b : a;
}

// One query head of one row.
struct Lane {
  PositionRange seen;
  const float* q;
  float* scores;
  float* values;
};

inline Lane LaneOf(const AttentionChunk& chunk, uint32_t row, uint32_t query) {
  const uint32_t head_dim = chunk.kv.head_dim;
  const size_t lane = static_cast<size_t>(row) * chunk.queries + query;
  return {chunk.seen[row], chunk.q + row * chunk.q_stride + static_cast<size_t>(query) * head_dim,
          chunk.scores + lane * kAttentionChunk, chunk.values + lane * head_dim};
}

// What is fetched while a block of keys is scored: as many bytes of each.
struct Fetch {
  const std::byte* keys;    // needed soon
  const std::byte* values;  // needed after all keys
};

// Scores of blocks of 16 positions, keys [D][16] each, for kQueries lanes; they go to
// `first` % kAttentionChunk.
template <bool kHalf, int kQueries, int kBlocks, bool kFetch>
inline void ScoreBlocks(const AttentionChunk& chunk, const Lane (&lanes)[kQueries], uint32_t first,
                        const std::byte* const (&keys)[kBlocks], const Fetch (&fetch)[kBlocks]) {
  constexpr uint32_t kStep = kKvBlockTokens * kElementBytes<kHalf>;
  const float* q[kQueries];
  for (int i = 0; i < kQueries; ++i) q[i] = lanes[i].q;
  __m256 sum[kQueries][2 * kBlocks];
#pragma GCC unroll 4
  for (int i = 0; i < kQueries; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 2 * kBlocks; ++j) sum[i][j] = _mm256_setzero_ps();
  size_t at = 0;
  for (uint32_t d = 0; d < chunk.kv.head_dim; ++d, at += kStep) {
    if constexpr (kFetch) {
      if (at % kLineBytes == 0) {
#pragma GCC unroll 2
        for (int b = 0; b < kBlocks; ++b) {
          _mm_prefetch(reinterpret_cast<const char*>(fetch[b].keys + at), _MM_HINT_T0);
          _mm_prefetch(reinterpret_cast<const char*>(fetch[b].values + at), _MM_HINT_T1);
        }
      }
    }
    __m256 element[kQueries];
#pragma GCC unroll 4
    for (int i = 0; i < kQueries; ++i) element[i] = _mm256_broadcast_ss(q[i] + d);
#pragma GCC unroll 4
    for (int j = 0; j < 2 * kBlocks; ++j) {
      const __m256 key =
          LoadCache<kHalf>(keys[j / 2] + at + static_cast<size_t>(j % 2) * kStep / 2);
#pragma GCC unroll 4
      for (int i = 0; i < kQueries; ++i) sum[i][j] = _mm256_fmadd_ps(element[i], key, sum[i][j]);
    }
  }
  const __m256 scale = _mm256_set1_ps(chunk.scale);
#pragma GCC unroll 4
  for (int i = 0; i < kQueries; ++i) {
    float* out = lanes[i].scores + first % kAttentionChunk;
#pragma GCC unroll 4
    for (int j = 0; j < 2 * kBlocks; ++j)
      _mm256_storeu_ps(out + static_cast<size_t>(8 * j), _mm256_mul_ps(sum[i][j], scale));
  }
}

// kCount vectors of scores to weights exp(score - maximum), added to `sum` one after the other.
template <int kCount>
inline void WeighVectors(float* scores, __m256 maximum, __m256& sum) {
  const __m256 unseen = _mm256_set1_ps(kMinusInfinity);
  __m256 score[kCount], weight[kCount];
#pragma GCC unroll 4
  for (int j = 0; j < kCount; ++j) {
    score[j] = _mm256_loadu_ps(scores + static_cast<size_t>(8 * j));
    weight[j] = _mm256_sub_ps(score[j], maximum);
  }
  ExpEach(weight);
#pragma GCC unroll 4
  for (int j = 0; j < kCount; ++j) {
    weight[j] = _mm256_and_ps(_mm256_cmp_ps(score[j], unseen, _CMP_NEQ_OQ), weight[j]);
    sum = _mm256_add_ps(sum, weight[j]);
    _mm256_storeu_ps(scores + static_cast<size_t>(8 * j), weight[j]);
  }
}

// Scores to weights in place; positions that the lane does not see weigh 0.
inline void WeighScores(const AttentionChunk& chunk, uint32_t row, uint32_t query) {
  const PositionRange seen = chunk.seen[row];
  const uint32_t begin = seen.begin % kAttentionChunk;
  const uint32_t end = begin + (seen.end - seen.begin);
  const uint32_t first = begin / 8 * 8, last = (end + 7) / 8 * 8;
  float* scores = LaneOf(chunk, row, query).scores;
  for (uint32_t i = first; i < begin; ++i) scores[i] = kMinusInfinity;
  for (uint32_t i = end; i < last; ++i) scores[i] = kMinusInfinity;

  __m256 largest = _mm256_set1_ps(kMinusInfinity);
  for (uint32_t i = first; i < last; i += 8)
    largest = _mm256_max_ps(largest, _mm256_loadu_ps(scores + i));
  __m128 largest4 = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
  largest4 = _mm_max_ps(largest4, _mm_movehl_ps(largest4, largest4));
  largest4 = _mm_max_ss(largest4, _mm_movehdup_ps(largest4));
  const __m256 maximum = _mm256_broadcastss_ps(largest4);

  __m256 sum = _mm256_setzero_ps();
  uint32_t i = first;
  for (; i + 32 <= last; i += 32) WeighVectors<4>(scores + i, maximum, sum);
  for (; i < last; i += 8) WeighVectors<1>(scores + i, maximum, sum);
  const size_t lane = static_cast<size_t>(row) * chunk.queries + query;
  chunk.maximum[lane] = _mm_cvtss_f32(largest4);
  chunk.sum[lane] = AddLanes(sum);
}

// Sums of weighted values, 8 * kVectors elements of kQueries lanes: in registers where it is used.
template <int kQueries, int kVectors>
struct ValueSums {
  __m256 sum[kQueries][kVectors];

  __attribute__((always_inline)) inline void Clear() {
#pragma GCC unroll 4
    for (int i = 0; i < kQueries; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm256_setzero_ps();
  }
  __attribute__((always_inline)) inline void Load(float* const (&from)[kQueries], uint32_t d) {
#pragma GCC unroll 4
    for (int i = 0; i < kQueries; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        sum[i][v] = _mm256_loadu_ps(from[i] + d + static_cast<size_t>(8 * v));
  }
  __attribute__((always_inline)) inline void Store(float* const (&to)[kQueries], uint32_t d) const {
#pragma GCC unroll 4
    for (int i = 0; i < kQueries; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        _mm256_storeu_ps(to[i] + d + static_cast<size_t>(8 * v), sum[i][v]);
  }
  // `count` positions; their values are `stride` bytes apart, their weights follow each other.
  // Beside each, `lines` lines at `fetch` and on are fetched.
  template <bool kHalf>
  __attribute__((always_inline)) inline void Add(const std::byte* values, size_t stride,
                                                 const float* const (&weights)[kQueries],
                                                 uint32_t count, const std::byte* fetch,
                                                 uint32_t lines) {
    for (uint32_t p = 0; p < count; ++p, values += stride) {
      for (uint32_t line = 0; line < lines; ++line, fetch += kLineBytes)
        _mm_prefetch(reinterpret_cast<const char*>(fetch), _MM_HINT_T1);
      __m256 weight[kQueries];
#pragma GCC unroll 4
      for (int i = 0; i < kQueries; ++i) weight[i] = _mm256_broadcast_ss(weights[i] + p);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const __m256 value = LoadCache<kHalf>(
            values + static_cast<size_t>(v) * static_cast<size_t>(8 * kElementBytes<kHalf>));
#pragma GCC unroll 4
        for (int i = 0; i < kQueries; ++i) sum[i][v] = _mm256_fmadd_ps(weight[i], value, sum[i][v]);
      }
    }
  }
};

// --- One row, read from the cache as it is.

// The block that is read as long after `position` of the chunk as the chunk's own is after its
// begin: null if nothing is known to follow.
inline const std::byte* BlockAhead(const AttentionChunk& chunk, uint32_t position) {
  const KeysAhead& ahead = chunk.ahead;
  if (ahead.table == nullptr) return nullptr;
  const uint32_t block = ahead.range.begin / kKvBlockTokens + position / kKvBlockTokens -
                         chunk.seen[0].begin / kKvBlockTokens;
  if (block * kKvBlockTokens >= ahead.range.end) return nullptr;
  return chunk.kv.blocks + ahead.table[block] * chunk.kv.block_bytes + ahead.key_offset;
}

// Elements [d, d + 8 * kVectors) of the weighted values.
template <bool kHalf, int kQueries, int kVectors>
inline void SumDirect(const AttentionChunk& chunk, uint32_t d) {
  const PositionRange seen = chunk.seen[0];
  const size_t stride = static_cast<size_t>(chunk.kv.head_dim) * kElementBytes<kHalf>;
  float* values[kQueries];
  for (int i = 0; i < kQueries; ++i) values[i] = LaneOf(chunk, 0, static_cast<uint32_t>(i)).values;
  ValueSums<kQueries, kVectors> sums;
  sums.Clear();
  for (uint32_t position = seen.begin; position < seen.end;) {
    const uint32_t stop = Min((position / kKvBlockTokens + 1) * kKvBlockTokens, seen.end);
    const float* weights[kQueries];
    for (int i = 0; i < kQueries; ++i)
      weights[i] = LaneOf(chunk, 0, static_cast<uint32_t>(i)).scores + position % kAttentionChunk;
    const std::byte* fetch = d == 0 ? BlockAhead(chunk, position) : nullptr;
    sums.template Add<kHalf>(BlockOf(chunk, position) + chunk.kv.value_offset +
                                 (position % kKvBlockTokens) * stride +
                                 static_cast<size_t>(d) * kElementBytes<kHalf>,
                             stride, weights, stop - position, fetch,
                             fetch == nullptr ? 0 : static_cast<uint32_t>(stride / kLineBytes));
    position = stop;
  }
  sums.Store(values, d);
}

template <bool kHalf, int kQueries, int kBlocks>
inline void ScoreDirect(const AttentionChunk& chunk, uint32_t first) {
  const std::byte* keys[kBlocks];
  Fetch fetch[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    const uint32_t position = first + static_cast<uint32_t>(b) * kKvBlockTokens;
    const uint32_t next = position + kBlocks * kKvBlockTokens;
    const std::byte* block = BlockOf(chunk, position);
    keys[b] = block + chunk.kv.key_offset;
    fetch[b] = {(next < chunk.seen[0].end ? BlockOf(chunk, next) : block) + chunk.kv.key_offset,
                block + chunk.kv.value_offset};
  }
  Lane lanes[kQueries];
  for (uint32_t i = 0; i < kQueries; ++i) lanes[i] = LaneOf(chunk, 0, i);
  ScoreBlocks<kHalf, kQueries, kBlocks, true>(chunk, lanes, first, keys, fetch);
}

template <bool kHalf, int kQueries>
void AttendDirect(const AttentionChunk& chunk) {
  constexpr int kBlocks = kQueries <= kQueriesAtOnce ? 2 : 1;
  constexpr int kVectors = kQueries <= kQueriesAtOnce ? 4 : 2;
  const PositionRange seen = chunk.seen[0];
  uint32_t first = seen.begin / kKvBlockTokens * kKvBlockTokens;
  for (; first + (kBlocks - 1) * kKvBlockTokens < seen.end; first += kBlocks * kKvBlockTokens)
    ScoreDirect<kHalf, kQueries, kBlocks>(chunk, first);
  for (; first < seen.end; first += kKvBlockTokens) ScoreDirect<kHalf, kQueries, 1>(chunk, first);
  for (uint32_t i = 0; i < kQueries; ++i) WeighScores(chunk, 0, i);
  uint32_t d = 0;
  for (; d + 8 * kVectors <= chunk.kv.head_dim; d += 8 * kVectors)
    SumDirect<kHalf, kQueries, kVectors>(chunk, d);
  for (; d < chunk.kv.head_dim; d += 8) SumDirect<kHalf, kQueries, 1>(chunk, d);
}

// --- Several rows, or many query heads: what they share is converted first.

// `count` elements, a multiple of 8, to floats. As many bytes of `fetch` are fetched.
template <bool kHalf>
inline void Convert(const std::byte* from, uint32_t count, float* to, const Fetch& fetch) {
  constexpr uint32_t kBytes = 8 * kElementBytes<kHalf>;  // of a vector
  size_t at = 0;
  for (uint32_t i = 0; i < count; i += 8, at += kBytes) {
    if (at % kLineBytes == 0) {
      _mm_prefetch(reinterpret_cast<const char*>(fetch.keys + at), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(fetch.values + at), _MM_HINT_T1);
    }
    _mm256_storeu_ps(to + i, LoadCache<kHalf>(from + at));
  }
}

// Calls body.Run(lanes) for the lanes of all rows that see some of `range`, a few at a time.
template <typename Body>
inline void ForLanes(const AttentionChunk& chunk, PositionRange range, const Body& body) {
  Lane lanes[kQueriesAtOnce];
  int count = 0;
  for (uint32_t row = 0; row < chunk.rows; ++row) {
    if (chunk.seen[row].end <= range.begin || chunk.seen[row].begin >= range.end) continue;
    for (uint32_t query = 0; query < chunk.queries; ++query) {
      lanes[count++] = LaneOf(chunk, row, query);
      if (count < kQueriesAtOnce) continue;
      body.Run(lanes);
      count = 0;
    }
  }
  if (count == 2) body.template Run<2>({lanes[0], lanes[1]});
  if (count == 1) body.template Run<1>({lanes[0]});
}

template <int kBlocks>
struct ScoreConverted {
  template <int kQueries>
  inline void Run(const Lane (&lanes)[kQueries]) const {
    const std::byte* keys[kBlocks];
    for (uint32_t b = 0; b < kBlocks; ++b)
      keys[b] = reinterpret_cast<const std::byte*>(
          chunk.converted + static_cast<size_t>(b) * kKvBlockTokens * chunk.kv.head_dim);
    const Fetch none[kBlocks] = {};
    ScoreBlocks<false, kQueries, kBlocks, false>(chunk, lanes, first, keys, none);
  }
  const AttentionChunk& chunk;
  uint32_t first;
};

// Scores of all rows for kBlocks blocks of positions from `first` on.
template <bool kHalf, int kBlocks>
inline void ScoreMany(const AttentionChunk& chunk, uint32_t first, uint32_t end) {
  const uint32_t count = kKvBlockTokens * chunk.kv.head_dim;
  for (uint32_t b = 0; b < kBlocks; ++b) {
    const uint32_t position = first + b * kKvBlockTokens;
    const uint32_t next = position + kBlocks * kKvBlockTokens;
    const std::byte* block = BlockOf(chunk, position);
    const Fetch fetch = {(next < end ? BlockOf(chunk, next) : block) + chunk.kv.key_offset,
                         block + chunk.kv.value_offset};
    Convert<kHalf>(block + chunk.kv.key_offset, count,
                   chunk.converted + static_cast<size_t>(b) * count, fetch);
  }
  ForLanes(chunk, {first, first + kBlocks * kKvBlockTokens}, ScoreConverted<kBlocks>{chunk, first});
}

// Adds the values of positions that are held converted from `first` on.
struct SumConverted {
  template <int kQueries, int kVectors>
  inline void AddElements(const float* values, const float* const (&weights)[kQueries],
                          float* const (&out)[kQueries], uint32_t count, uint32_t d) const {
    const uint32_t head_dim = chunk.kv.head_dim;
    ValueSums<kQueries, kVectors> sums;
    sums.Load(out, d);
    sums.template Add<false>(reinterpret_cast<const std::byte*>(values + d),
                             static_cast<size_t>(head_dim) * 4, weights, count, nullptr, 0);
    sums.Store(out, d);
  }

  template <int kQueries>
  inline void AddRange(const Lane* lanes, PositionRange range) const {
    if (range.begin >= range.end) return;
    const uint32_t head_dim = chunk.kv.head_dim;
    const float* values = chunk.converted + static_cast<size_t>(range.begin - first) * head_dim;
    const float* weights[kQueries];
    float* out[kQueries];
    for (int i = 0; i < kQueries; ++i) {
      weights[i] = lanes[i].scores + range.begin % kAttentionChunk;
      out[i] = lanes[i].values;
    }
    uint32_t d = 0;
    for (; d + 32 <= head_dim; d += 32)
      AddElements<kQueries, 4>(values, weights, out, range.end - range.begin, d);
    for (; d < head_dim; d += 8)
      AddElements<kQueries, 1>(values, weights, out, range.end - range.begin, d);
  }

  // The positions that all lanes see together, before and after them those of single lanes.
  template <int kQueries>
  inline void Run(const Lane (&lanes)[kQueries]) const {
    PositionRange common = {first, end};
    for (const Lane& lane : lanes)
      common = {Max(common.begin, lane.seen.begin), Min(common.end, lane.seen.end)};
    if (common.begin >= common.end) common = {end, end};
    for (const Lane& lane : lanes)
      AddRange<1>(&lane, {Max(lane.seen.begin, first), Min(lane.seen.end, common.begin)});
    AddRange<kQueries>(lanes, common);
    for (const Lane& lane : lanes)
      AddRange<1>(&lane, {Max(lane.seen.begin, common.end), Min(lane.seen.end, end)});
  }

  const AttentionChunk& chunk;
  uint32_t first;
  uint32_t end;
};

template <bool kHalf>
inline void SumMany(const AttentionChunk& chunk, uint32_t begin, uint32_t end) {
  const uint32_t head_dim = chunk.kv.head_dim;
  const size_t stride = static_cast<size_t>(head_dim) * kElementBytes<kHalf>;
  // Half of an L1 cache of the usual size.
  const uint32_t step = head_dim <= 64 ? kConvertedTokens : kConvertedTokens / 2;
  const uint32_t sums = chunk.rows * chunk.queries * head_dim;
  for (uint32_t i = 0; i < sums; i += 8) _mm256_storeu_ps(chunk.values + i, _mm256_setzero_ps());
  for (uint32_t first = begin; first < end;) {
    const uint32_t last = Min((first / step + 1) * step, end);
    for (uint32_t position = first; position < last;) {
      const uint32_t stop = Min((position / kKvBlockTokens + 1) * kKvBlockTokens, last);
      const std::byte* values =
          BlockOf(chunk, position) + chunk.kv.value_offset + (position % kKvBlockTokens) * stride;
      const std::byte* ahead = BlockAhead(chunk, position);
      if (ahead == nullptr) ahead = values;
      Convert<kHalf>(values, (stop - position) * head_dim,
                     chunk.converted + static_cast<size_t>(position - first) * head_dim,
                     {values, ahead});
      position = stop;
    }
    ForLanes(chunk, {first, last}, SumConverted{chunk, first, last});
    first = last;
  }
}

template <bool kHalf>
void AttendMany(const AttentionChunk& chunk) {
  const uint32_t begin = chunk.seen[0].begin, end = chunk.seen[chunk.rows - 1].end;
  uint32_t first = begin / kKvBlockTokens * kKvBlockTokens;
  for (; first + kKvBlockTokens < end; first += 2 * kKvBlockTokens)
    ScoreMany<kHalf, 2>(chunk, first, end);
  if (first < end) ScoreMany<kHalf, 1>(chunk, first, end);
  for (uint32_t row = 0; row < chunk.rows; ++row)
    for (uint32_t query = 0; query < chunk.queries; ++query) WeighScores(chunk, row, query);
  SumMany<kHalf>(chunk, begin, end);
}

template <bool kHalf>
void Attend(const AttentionChunk& chunk) {
  static_assert(kQueriesDirect == 4);
  switch (chunk.rows == 1 ? chunk.queries : 0) {
    case 1:
      return AttendDirect<kHalf, 1>(chunk);
    case 2:
      return AttendDirect<kHalf, 2>(chunk);
    case 3:
      return AttendDirect<kHalf, 3>(chunk);
    case 4:
      return AttendDirect<kHalf, 4>(chunk);
    default:
      return AttendMany<kHalf>(chunk);
  }
}

}  // namespace

void AttendChunk(const AttentionChunk& chunk) {
  if (chunk.kv.head_dim % 8 != 0) return ScalarKernels().attention_chunk(chunk);
  return chunk.kv.half ? Attend<true>(chunk) : Attend<false>(chunk);
}

void MergeChunk(const AttentionMerge& merge) {
  if (merge.head_dim % 8 != 0) return ScalarKernels().attention_merge(merge);
  const float maximum = *merge.maximum < merge.chunk_maximum ? merge.chunk_maximum : *merge.maximum;
  const __m256 keep = Exp(_mm256_set1_ps(*merge.maximum - maximum));
  const __m256 take = Exp(_mm256_set1_ps(merge.chunk_maximum - maximum));
  *merge.maximum = maximum;
  *merge.sum =
      __builtin_fmaf(*merge.sum, _mm256_cvtss_f32(keep), merge.chunk_sum * _mm256_cvtss_f32(take));
  for (uint32_t d = 0; d < merge.head_dim; d += 8) {
    const __m256 chunk = _mm256_mul_ps(_mm256_loadu_ps(merge.chunk_values + d), take);
    _mm256_storeu_ps(merge.values + d,
                     _mm256_fmadd_ps(_mm256_loadu_ps(merge.values + d), keep, chunk));
  }
}

}  // namespace muselet::cpu::avx2

#endif
