#include "node/text/jinja/text.h"

#include <algorithm>

namespace muselet::jinja {

void Text::Mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!tainted_.empty() && tainted_.back().end == begin) {
    tainted_.back().end = end;
  } else {
    tainted_.push_back({begin, end});
  }
}

void Text::Append(std::string_view bytes, bool tainted) {
  const size_t begin = bytes_.size();
  bytes_ += bytes;
  if (tainted) Mark(begin, bytes_.size());
}

void Text::Append(const Text& other) {
  const size_t offset = bytes_.size();
  bytes_ += other.bytes_;
  for (const TextRange& range : other.tainted_) Mark(offset + range.begin, offset + range.end);
}

Text Text::Slice(size_t begin, size_t end) const {
  Text out;
  out.bytes_ = bytes_.substr(begin, end - begin);
  const auto first = std::partition_point(
      tainted_.begin(), tainted_.end(), [&](const TextRange& range) { return range.end <= begin; });
  for (auto range = first; range != tainted_.end() && range->begin < end; ++range) {
    out.Mark(std::max(range->begin, begin) - begin, std::min(range->end, end) - begin);
  }
  return out;
}

}  // namespace muselet::jinja
