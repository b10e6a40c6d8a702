#include "node/cli/sse_reader.h"

namespace muselet {

Status SseReader::Feed(std::string_view bytes,
                       const std::function<void(std::string_view data)>& on_event) {
  for (const char c : bytes) {
    const bool ends_crlf = after_cr_ && c == '\n';
    after_cr_ = c == '\r';
    if (ends_crlf) continue;
    if (c == '\n' || c == '\r') {
      EndLine(on_event);
      continue;
    }
    if (line_.size() + data_.size() >= event_bytes_max_) {
      return ResourceExhausted("an event is larger than " + std::to_string(event_bytes_max_) +
                               " bytes");
    }
    line_ += c;
  }
  return OkStatus();
}

void SseReader::EndLine(const std::function<void(std::string_view data)>& on_event) {
  constexpr std::string_view kData = "data:";
  if (line_.empty()) {
    if (has_data_) on_event(data_);
    data_.clear();
    has_data_ = false;
  } else if (line_.rfind(kData, 0) == 0) {
    std::string_view value = std::string_view(line_).substr(kData.size());
    if (!value.empty() && value.front() == ' ') value.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  }
  line_.clear();
}

}  // namespace muselet
