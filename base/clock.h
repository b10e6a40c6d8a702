// Time as a dependency. Protocol cores take `now_us` as an argument and never see a clock; the
// loops around them read this interface, so tests can drive them by hand.
#pragma once

#include <atomic>
#include <cstdint>

namespace muselet {

class Clock {
 public:
  virtual ~Clock() = default;
  // Microseconds on a monotonic scale with an arbitrary origin. Any thread.
  virtual int64_t NowUs() const = 0;
  // Microseconds since the Unix epoch, for records that people read. Any thread.
  virtual int64_t UnixUs() const = 0;

  // The process's real clock; never null, never destroyed.
  static const Clock& Real();
};

// A clock that stands still until it is told to move. Any thread.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(int64_t now_us = 0) : now_us_(now_us) {}
  int64_t NowUs() const override { return now_us_.load(); }
  int64_t UnixUs() const override { return kUnixOriginUs + now_us_.load(); }
  void Advance(int64_t delta_us) { now_us_.fetch_add(delta_us); }

 private:
  static constexpr int64_t kUnixOriginUs = 1'700'000'000'000'000;
  std::atomic<int64_t> now_us_;
};

}  // namespace muselet
