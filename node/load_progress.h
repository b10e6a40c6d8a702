// Shows how far loading a model is: a bar on a terminal, otherwise one log line every few seconds.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"

namespace muselet {

// Used by the loading thread alone.
class LoadProgressDisplay {
 public:
  // kLog: no bar, even on a terminal, where several processes load at once.
  enum class Style : uint8_t { kAuto, kLog };
  explicit LoadProgressDisplay(std::string model, Style style = Style::kAuto,
                               const Clock& clock = Clock::Real());
  // Ends the bar's line, so that what is printed next begins a new one.
  ~LoadProgressDisplay();
  LoadProgressDisplay(const LoadProgressDisplay&) = delete;
  LoadProgressDisplay& operator=(const LoadProgressDisplay&) = delete;

  void Update(uint64_t bytes_done, uint64_t bytes_total);

 private:
  std::string model_;
  const Clock& clock_;
  int64_t begin_us_;
  int64_t shown_us_;
  bool terminal_;
  bool bar_shown_ = false;
};

// "98.4 MB", "1.23 GB": three digits, decimal units.
std::string FormatBytes(uint64_t bytes);

}  // namespace muselet
