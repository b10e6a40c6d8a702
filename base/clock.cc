#include "base/clock.h"

#include <chrono>

namespace muselet {
namespace {

class RealClock final : public Clock {
 public:
  int64_t NowUs() const override { return Us(std::chrono::steady_clock::now()); }
  int64_t UnixUs() const override { return Us(std::chrono::system_clock::now()); }

 private:
  template <typename TimePoint>
  static int64_t Us(TimePoint point) {
    return std::chrono::duration_cast<std::chrono::microseconds>(point.time_since_epoch()).count();
  }
};

}  // namespace

const Clock& Clock::Real() {
  static const RealClock clock;
  return clock;
}

}  // namespace muselet
