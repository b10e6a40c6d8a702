// The one source of chance in a simulation: the same seed gives the same run on every machine
// (splitmix64; the distributions of the standard library differ from one to the next).
#pragma once

#include <cmath>
#include <cstdint>

namespace muselet {

// A bijection that mixes all bits of its argument: the finalizer of splitmix64.
constexpr uint64_t MixBits(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : state_(MixBits(seed + 1)) {}

  uint64_t Next() { return MixBits(state_ += 0x9E3779B97F4A7C15ULL); }
  uint64_t Below(uint64_t limit) { return limit == 0 ? 0 : Next() % limit; }
  // Both ends included.
  int64_t Between(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(Below(static_cast<uint64_t>(most - least) + 1));
  }
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }  // [0, 1)
  bool Chance(double probability) { return probability > 0 && Unit() < probability; }
  double Exponential(double mean) { return -mean * std::log(1.0 - Unit()); }

 private:
  uint64_t state_;
};

}  // namespace muselet
