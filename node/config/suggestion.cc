#include "node/config/suggestion.h"

#include <algorithm>
#include <cctype>

namespace muselet {
namespace {

constexpr size_t kWordMax = 128;  // longer words are not misspelt, they are something else

std::string Lower(std::string_view word) {
  std::string lower(word);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Optimal string alignment distance, three rows of the table at a time.
size_t Edits(const std::string& a, const std::string& b) {
  std::vector<size_t> before(b.size() + 1);
  std::vector<size_t> above(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

}  // namespace

std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.empty() || word.size() > kWordMax) return "";
  const std::string lower = Lower(word);
  size_t best_edits = std::max<size_t>(1, word.size() / 3) + 1;
  std::string best;
  std::string containing;
  int containing_count = 0;
  for (const std::string& candidate : candidates) {
    if (candidate.empty() || candidate.size() > kWordMax) continue;
    const std::string lower_candidate = Lower(candidate);
    const size_t edits = Edits(lower, lower_candidate);
    if (edits < best_edits) {
      best_edits = edits;
      best = candidate;
    }
    if (lower.size() >= 3 && lower_candidate.find(lower) != std::string::npos) {
      containing = candidate;
      ++containing_count;
    }
  }
  if (!best.empty()) return best;
  return containing_count == 1 ? containing : "";
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates,
                       std::string_view otherwise) {
  const std::string nearest = NearestWord(word, candidates);
  return nearest.empty() ? std::string(otherwise) : "did you mean " + nearest + "?";
}

}  // namespace muselet
