// Bounds of decoded fields, in words that name the field. Private to rank_codec.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "base/types.h"

namespace muselet {

inline Status CheckSize(size_t size, size_t limit, std::string_view field) {
  if (size <= limit) return OkStatus();
  return InvalidArgument(std::string(field) + ": " + std::to_string(size) + ", the limit is " +
                         std::to_string(limit));
}

inline Status CheckTokenId(TokenId id, uint32_t vocab_size, std::string_view field) {
  if (id >= 0 && static_cast<uint32_t>(id) < vocab_size) return OkStatus();
  return InvalidArgument(std::string(field) + ": token id " + std::to_string(id) +
                         " is outside the vocabulary of " + std::to_string(vocab_size));
}

inline Status CheckDuration(int64_t value, std::string_view field) {
  return value < 0 ? InvalidArgument(std::string(field) + ": negative") : OkStatus();
}

}  // namespace muselet
