// Attention over one chunk of positions: 8 positions are the 8 lanes of a score, 8 elements of a
// head the 8 lanes of a value.
#if defined(__AVX2__)

#include "node/cpu/avx2.h"

namespace muselet::cpu::avx2 {
namespace {

constexpr int kQueriesMax = 4;
constexpr float kMinusInfinity = -__builtin_inff();

template <bool kHalf>
inline __m256 LoadCache(const std::byte* base, size_t index) {
  if constexpr (kHalf) return LoadHalves(base + index * 2);
  return _mm256_loadu_ps(reinterpret_cast<const float*>(base) + index);
}

inline const std::byte* BlockOf(const AttentionChunk& chunk, uint32_t position) {
  return chunk.kv.blocks + chunk.table[position / kKvBlockTokens] * chunk.kv.block_bytes;
}

inline float* ScoresOf(const AttentionChunk& chunk, uint32_t query) {
  return chunk.scores + static_cast<size_t>(query) * kAttentionChunk;
}

// Scores of kBlocks blocks of positions that start at `first`, for kQueries query heads.
template <bool kHalf, int kQueries, int kBlocks>
inline void ScoreBlocks(const AttentionChunk& chunk, uint32_t query, uint32_t first) {
  const uint32_t head_dim = chunk.kv.head_dim;
  const std::byte* keys[kBlocks];
  for (int b = 0; b < kBlocks; ++b)
    keys[b] =
        BlockOf(chunk, first + static_cast<uint32_t>(b) * kKvBlockTokens) + chunk.kv.key_offset;
  const float* q = chunk.q + static_cast<size_t>(query) * head_dim;
  __m256 sum[kQueries][2 * kBlocks];
  for (int i = 0; i < kQueries; ++i)
    for (int j = 0; j < 2 * kBlocks; ++j) sum[i][j] = _mm256_setzero_ps();
  for (uint32_t d = 0; d < head_dim; ++d) {
    for (int j = 0; j < 2 * kBlocks; ++j) {
      const size_t at = static_cast<size_t>(d) * kKvBlockTokens + 8 * (j % 2);
      const __m256 key = LoadCache<kHalf>(keys[j / 2], at);
      for (int i = 0; i < kQueries; ++i) {
        const __m256 element = _mm256_broadcast_ss(q + static_cast<size_t>(i) * head_dim + d);
        sum[i][j] = _mm256_fmadd_ps(element, key, sum[i][j]);
      }
    }
  }
  const __m256 scale = _mm256_set1_ps(chunk.scale);
  for (int i = 0; i < kQueries; ++i) {
    float* out = ScoresOf(chunk, query + static_cast<uint32_t>(i)) + first % kAttentionChunk;
    for (int j = 0; j < 2 * kBlocks; ++j)
      _mm256_storeu_ps(out + 8 * j, _mm256_mul_ps(sum[i][j], scale));
  }
}

// Scores to weights exp(score - maximum) in place; positions outside the chunk's range weigh 0.
inline void WeighScores(const AttentionChunk& chunk, uint32_t query) {
  const uint32_t begin = chunk.begin % kAttentionChunk;
  const uint32_t end = begin + (chunk.end - chunk.begin);
  const uint32_t first = begin / 8 * 8, last = (end + 7) / 8 * 8;
  float* scores = ScoresOf(chunk, query);
  for (uint32_t i = first; i < begin; ++i) scores[i] = kMinusInfinity;
  for (uint32_t i = end; i < last; ++i) scores[i] = kMinusInfinity;

  __m256 largest = _mm256_set1_ps(kMinusInfinity);
  for (uint32_t i = first; i < last; i += 8)
    largest = _mm256_max_ps(largest, _mm256_loadu_ps(scores + i));
  __m128 largest4 = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
  largest4 = _mm_max_ps(largest4, _mm_movehl_ps(largest4, largest4));
  const float maximum = _mm_cvtss_f32(_mm_max_ss(largest4, _mm_movehdup_ps(largest4)));

  __m256 lanes = _mm256_setzero_ps();
  for (uint32_t i = first; i < last; i += 8) {
    const __m256 score = _mm256_loadu_ps(scores + i);
    const __m256 seen = _mm256_cmp_ps(score, _mm256_set1_ps(kMinusInfinity), _CMP_NEQ_OQ);
    const __m256 weight = _mm256_and_ps(seen, Exp(_mm256_sub_ps(score, _mm256_set1_ps(maximum))));
    lanes = _mm256_add_ps(lanes, weight);
    _mm256_storeu_ps(scores + i, weight);
  }
  chunk.maximum[query] = maximum;
  chunk.sum[query] = AddLanes(lanes);
}

// Weighted values of elements [d, d + 8 * kVectors), for kQueries query heads.
template <bool kHalf, int kQueries, int kVectors>
inline void SumValues(const AttentionChunk& chunk, uint32_t query, uint32_t d) {
  const uint32_t head_dim = chunk.kv.head_dim;
  __m256 acc[kQueries][kVectors];
  for (int i = 0; i < kQueries; ++i)
    for (int v = 0; v < kVectors; ++v) acc[i][v] = _mm256_setzero_ps();
  const float* weights = ScoresOf(chunk, query);
  uint32_t position = chunk.begin;
  while (position < chunk.end) {
    const std::byte* values = BlockOf(chunk, position) + chunk.kv.value_offset;
    const uint32_t block_end = (position / kKvBlockTokens + 1) * kKvBlockTokens;
    const uint32_t stop = block_end < chunk.end ? block_end : chunk.end;
    for (; position < stop; ++position) {
      const size_t at = static_cast<size_t>(position % kKvBlockTokens) * head_dim + d;
      for (int v = 0; v < kVectors; ++v) {
        const __m256 value = LoadCache<kHalf>(values, at + 8 * v);
        for (int i = 0; i < kQueries; ++i) {
          const __m256 weight =
              _mm256_broadcast_ss(weights + i * kAttentionChunk + position % kAttentionChunk);
          acc[i][v] = _mm256_fmadd_ps(weight, value, acc[i][v]);
        }
      }
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    float* out =
        chunk.values + static_cast<size_t>(query + static_cast<uint32_t>(i)) * head_dim + d;
    for (int v = 0; v < kVectors; ++v) _mm256_storeu_ps(out + 8 * v, acc[i][v]);
  }
}

template <bool kHalf, int kQueries>
void AttendQueries(const AttentionChunk& chunk, uint32_t query) {
  // As many sums in flight as there are registers for.
  constexpr int kBlocks = kQueries <= 3 ? 2 : 1;
  constexpr int kVectors = kQueries <= 3 ? 4 : 2;
  uint32_t first = chunk.begin / kKvBlockTokens * kKvBlockTokens;
  for (; first + (kBlocks - 1) * kKvBlockTokens < chunk.end; first += kBlocks * kKvBlockTokens)
    ScoreBlocks<kHalf, kQueries, kBlocks>(chunk, query, first);
  for (; first < chunk.end; first += kKvBlockTokens)
    ScoreBlocks<kHalf, kQueries, 1>(chunk, query, first);
  for (int i = 0; i < kQueries; ++i) WeighScores(chunk, query + static_cast<uint32_t>(i));
  uint32_t d = 0;
  for (; d + 8 * kVectors <= chunk.kv.head_dim; d += 8 * kVectors)
    SumValues<kHalf, kQueries, kVectors>(chunk, query, d);
  for (; d < chunk.kv.head_dim; d += 8) SumValues<kHalf, kQueries, 1>(chunk, query, d);
}

template <bool kHalf>
void AttendAll(const AttentionChunk& chunk) {
  uint32_t query = 0;
  for (; query + kQueriesMax <= chunk.queries; query += kQueriesMax)
    AttendQueries<kHalf, kQueriesMax>(chunk, query);
  switch (chunk.queries - query) {
    case 3:
      return AttendQueries<kHalf, 3>(chunk, query);
    case 2:
      return AttendQueries<kHalf, 2>(chunk, query);
    case 1:
      return AttendQueries<kHalf, 1>(chunk, query);
    default:
      return;
  }
}

}  // namespace

void AttendChunk(const AttentionChunk& chunk) {
  if (chunk.kv.head_dim % 8 != 0) return ScalarKernels().attention_chunk(chunk);
  return chunk.kv.half ? AttendAll<true>(chunk) : AttendAll<false>(chunk);
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
