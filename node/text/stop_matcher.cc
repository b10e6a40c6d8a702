#include <algorithm>

#include "node/text/detokenizer.h"

namespace muselet {

StopMatcher::StopMatcher(std::vector<std::string> stop_strings)
    : stop_strings_(std::move(stop_strings)) {
  std::erase(stop_strings_, std::string());
}

StopMatcher::Output StopMatcher::Push(std::string_view text, bool include_stop) {
  Output output;
  held_ += text;
  // The match that is complete first counts, whatever pieces the text comes in; of those that end
  // at one place, the longest.
  size_t first_end = std::string::npos;
  const std::string* found = nullptr;
  for (const std::string& stop : stop_strings_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (end < first_end || (end == first_end && stop.size() > found->size())) {
      first_end = end;
      found = &stop;
    }
  }
  if (found != nullptr) {
    output.stopped = true;
    output.stop_string = *found;
    output.text = held_.substr(0, include_stop ? first_end : first_end - found->size());
    held_.clear();
    return output;
  }
  // Held back: the longest end of the text that begins some stop string.
  size_t keep = 0;
  for (const std::string& stop : stop_strings_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (std::string_view(held_).substr(held_.size() - length) ==
          std::string_view(stop).substr(0, length)) {
        keep = length;
        break;
      }
    }
  }
  output.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return output;
}

std::string StopMatcher::Finish() {
  std::string rest;
  rest.swap(held_);
  return rest;
}

}  // namespace muselet
