#include "node/engine/portable_math.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace muselet {
namespace {

// ln 2 in two parts: the first has 32 trailing zero bits, so that its product with an exponent is
// exact.
constexpr double kLn2High = 0x1.62e42feep-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kLog2E = 0x1.71547652b82fep+0;

// 1/13!, 1/12!, ..., 1/0!
constexpr std::array<double, 14> kExpTaylor = [] {
  std::array<double, 14> result{};
  double factorial = 1;
  for (int n = 0; n < 14; ++n) {
    result[13 - n] = 1 / factorial;
    factorial *= n + 1;
  }
  return result;
}();
// 1/23, 1/21, ..., 1
constexpr std::array<double, 12> kAtanhSeries = [] {
  std::array<double, 12> result{};
  for (int n = 0; n < 12; ++n) result[11 - n] = 1.0 / (2 * n + 1);
  return result;
}();

}  // namespace

double PortableExp(double x) {
  if (x < -708.0) return 0.0;
  if (x > 709.0) return std::numeric_limits<double>::infinity();
  const double scaled = x * kLog2E;
  const auto exponent = static_cast<int64_t>(scaled + (scaled < 0 ? -0.5 : 0.5));
  const auto k = static_cast<double>(exponent);
  const double r = (x - k * kLn2High) - k * kLn2Low;  // |r| <= ln2 / 2
  double sum = 0;
  for (const double coefficient : kExpTaylor) sum = coefficient + sum * r;
  return sum * std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

double PortableLog(double x) {
  const auto bits = std::bit_cast<uint64_t>(x);
  auto exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL);
  if (mantissa > 0x1.6a09e667f3bcdp+0) {  // sqrt(2): keeps the series' argument small
    mantissa *= 0.5;
    ++exponent;
  }
  // log m = 2 atanh s = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1), |s| < 0.172
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double s2 = s * s;
  double sum = 0;
  for (const double coefficient : kAtanhSeries) sum = coefficient + sum * s2;
  const auto k = static_cast<double>(exponent);
  return k * kLn2High + (2.0 * s * sum + k * kLn2Low);
}

}  // namespace muselet
