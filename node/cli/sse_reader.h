// Server-sent events, from bytes as they come off a connection to the data of whole events.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace muselet {

// Lines may end in LF, CR or CR LF and may be cut anywhere. Comments and fields other than data are
// passed over; several data lines of one event are joined by LF. An event that is not closed by an
// empty line is never given out.
class SseReader {
 public:
  explicit SseReader(size_t event_bytes_max = 4 << 20) : event_bytes_max_(event_bytes_max) {}

  // Calls on_event for each event that `bytes` completes. kResourceExhausted if an event grows
  // beyond the limit; then the reader is of no more use.
  Status Feed(std::string_view bytes, const std::function<void(std::string_view data)>& on_event);

 private:
  void EndLine(const std::function<void(std::string_view data)>& on_event);

  size_t event_bytes_max_;
  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_cr_ = false;  // an LF now belongs to the line that CR ended
};

}  // namespace muselet
