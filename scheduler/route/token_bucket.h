// A quota of so much a minute: full at first, filled again at a constant rate. What is asked may be
// more than a full bucket holds; then the bucket owes the rest. Plain value.
#pragma once

#include <algorithm>
#include <cstdint>

namespace muselet {

class TokenBucket {
 public:
  static constexpr double kMinuteUs = 60e6;

  TokenBucket() = default;
  // `per_minute` 0 = no limit.
  explicit TokenBucket(uint64_t per_minute)
      : capacity_(static_cast<double>(per_minute)), level_(capacity_) {}

  bool limited() const { return capacity_ > 0; }
  // Another share of the quota is ours: what was left keeps its proportion.
  void Resize(double capacity) {
    if (capacity_ > 0) level_ *= capacity / capacity_;
    capacity_ = capacity;
  }
  void Fill(int64_t now_us) {
    if (updated_us_ != 0 && now_us > updated_us_)
      Return(static_cast<double>(now_us - updated_us_) * capacity_ / kMinuteUs);
    updated_us_ = std::max(updated_us_, now_us);
  }
  bool Has(double amount) const { return !limited() || level_ >= std::min(amount, capacity_); }
  void Take(double amount) { level_ -= limited() ? amount : 0; }
  void Return(double amount) { level_ = std::min(capacity_, level_ + amount); }

  double capacity() const { return capacity_; }
  double level() const { return std::max(level_, 0.0); }
  // Until `Has(amount)`.
  int64_t TimeUntilUs(double amount) const {
    return limited() ? TimeToGainUs(std::min(amount, capacity_) - level_) : 0;
  }
  int64_t TimeUntilFullUs() const { return TimeUntilUs(capacity_); }

 private:
  int64_t TimeToGainUs(double amount) const {
    return static_cast<int64_t>(std::max(amount, 0.0) * kMinuteUs / capacity_);
  }

  double capacity_ = 0;
  double level_ = 0;
  int64_t updated_us_ = 0;
};

}  // namespace muselet
