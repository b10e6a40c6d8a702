#include "node/engine/penalty_counts.h"

#include <algorithm>

namespace muselet {

void PenaltyCounts::Reset(size_t token_max) {
  entries_.clear();
  entries_.reserve(token_max);
  counted_ = 0;
}

void PenaltyCounts::CatchUp(std::span<const TokenId> tokens, size_t prompt_count) {
  for (; counted_ < tokens.size(); ++counted_) {
    const TokenId id = tokens[counted_];
    const auto place = std::lower_bound(entries_.begin(), entries_.end(), id,
                                        [](const Entry& e, TokenId value) { return e.id < value; });
    const auto entry =
        place != entries_.end() && place->id == id ? place : entries_.insert(place, Entry{id, 0});
    if (counted_ >= prompt_count) ++entry->in_answer;
  }
}

}  // namespace muselet
