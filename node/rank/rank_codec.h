// Messages between a leader and its ranks as bytes: protobuf of comms/proto/rank.proto. What
// decoding lets through is safe to index with: token ids lie in the vocabulary, slices cover the
// rows in order, block tables cover the positions and name blocks that there are.
//
// Stateless; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "node/model/model.h"
#include "node/rank/rank_messages.h"

namespace muselet {

// What the receiver can take.
struct RankLimits {
  size_t message_bytes_max = 64U << 20;
  uint32_t vocab_size = 0;
  uint32_t context_tokens = 0;
  uint32_t block_tokens = 1;
  std::vector<uint32_t> kv_blocks;  // by KV group
  uint32_t slots = 0;               // BatchOptions::sequences_max
  uint32_t rows_max = 0;            // BatchOptions::step_tokens_max
};
RankLimits RankLimitsOf(const ModelInfo& info, uint32_t slots, uint32_t rows_max);

std::string EncodeRankMessage(const RankMessage& message);

// kInvalidArgument naming the field for bytes that are larger than message_bytes_max (checked
// before they are parsed), are no rank message, or hold what is out of bounds. kPermissionDenied
// naming both versions for a message of another version of this wire.
Result<RankMessage> DecodeRankMessage(std::string_view bytes, const RankLimits& limits);

}  // namespace muselet
