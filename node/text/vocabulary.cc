#include "node/text/vocabulary.h"

#include <algorithm>
#include <bit>

#include "node/text/utf8.h"

namespace muselet {
namespace {

constexpr size_t kTextBytesMax = 1U << 20;

}  // namespace

size_t Vocabulary::FirstSlot(std::string_view text) const {
  return std::hash<std::string_view>()(text) & (slots_.size() - 1);
}

std::optional<TokenId> Vocabulary::Find(std::string_view text) const {
  if (slots_.empty()) return std::nullopt;
  for (size_t slot = FirstSlot(text);; slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot] < 0) return std::nullopt;
    if (Text(slots_[slot]) == text) return slots_[slot];
  }
}

Result<Vocabulary> Vocabulary::Build(const std::vector<Entry>& entries) {
  const int64_t id_limit = 2 * static_cast<int64_t>(entries.size()) + 65'536;
  TokenId id_max = -1;
  uint64_t bytes = 0;
  for (const Entry& entry : entries) {
    if (entry.id < 0 || entry.id >= id_limit) {
      return InvalidArgument("token " + Quoted(entry.text) + " has id " + std::to_string(entry.id) +
                             ", which is out of range for " + std::to_string(entries.size()) +
                             " tokens");
    }
    if (entry.text.size() > kTextBytesMax) {
      return InvalidArgument("token " + std::to_string(entry.id) + " is longer than 1 MiB");
    }
    id_max = std::max(id_max, entry.id);
    bytes += entry.text.size();
  }
  Vocabulary vocabulary;
  vocabulary.bytes_.reserve(bytes);
  vocabulary.spans_.resize(static_cast<size_t>(id_max + 1));
  vocabulary.slots_.assign(std::bit_ceil(2 * entries.size() + 2), -1);
  std::vector<bool> taken(vocabulary.spans_.size());
  for (const Entry& entry : entries) {
    const auto id = static_cast<size_t>(entry.id);
    if (taken[id]) {
      return InvalidArgument("id " + std::to_string(entry.id) + " is given twice, to " +
                             Quoted(vocabulary.Text(entry.id)) + " and " + Quoted(entry.text));
    }
    taken[id] = true;
    vocabulary.spans_[id] = {vocabulary.bytes_.size(), static_cast<uint32_t>(entry.text.size())};
    vocabulary.bytes_ += entry.text;
    if (!entry.findable) continue;
    size_t slot = vocabulary.FirstSlot(entry.text);
    for (; vocabulary.slots_[slot] >= 0; slot = (slot + 1) & (vocabulary.slots_.size() - 1)) {
      if (vocabulary.Text(vocabulary.slots_[slot]) == entry.text) {
        return InvalidArgument("token " + Quoted(entry.text) + " stands twice, as " +
                               std::to_string(vocabulary.slots_[slot]) + " and " +
                               std::to_string(entry.id));
      }
    }
    vocabulary.slots_[slot] = entry.id;
  }
  return vocabulary;
}

}  // namespace muselet
