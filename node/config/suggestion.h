// "Did you mean": the nearest of the words that would have been right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace muselet {

// The candidate with the fewest edits (insert, delete, replace, swap of neighbours) to `word`, or
// empty if none is near: at most a third of the word's length, and at least one, edits away, or the
// one candidate of which `word` is a part. Case does not count.
std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates);

// "did you mean X?", or `otherwise` if no candidate is near.
std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates,
                       std::string_view otherwise = "");

}  // namespace muselet
