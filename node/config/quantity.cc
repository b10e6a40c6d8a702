#include "node/config/quantity.h"

#include <array>
#include <charconv>
#include <cmath>
#include <span>

namespace muselet {
namespace {

constexpr double kExactMax = 9007199254740992.0;  // 2^53

struct Unit {
  std::string_view name;
  double factor;
};
constexpr std::array<Unit, 10> kByteUnits = {{{"", 1},
                                              {"B", 1},
                                              {"KiB", 1024.0},
                                              {"MiB", 1048576.0},
                                              {"GiB", 1073741824.0},
                                              {"TiB", 1099511627776.0},
                                              {"kB", 1e3},
                                              {"MB", 1e6},
                                              {"GB", 1e9},
                                              {"TB", 1e12}}};
constexpr std::array<Unit, 6> kTimeUnits = {
    {{"", 1e3}, {"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"m", 60e6}, {"h", 3600e6}}};

Result<int64_t> ParseQuantity(std::string_view text, std::span<const Unit> units) {
  double number = 0;
  const char* last = text.data() + text.size();
  const auto [end, fault] = std::from_chars(text.data(), last, number, std::chars_format::fixed);
  if (fault != std::errc() || !std::isfinite(number)) return InvalidArgument("not a number");
  std::string_view unit(end, static_cast<size_t>(last - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const Unit& candidate : units) {
    if (unit != candidate.name) continue;
    const double scaled = number * candidate.factor;
    const double whole = std::round(scaled);
    if (std::abs(scaled) > kExactMax) return InvalidArgument("too large");
    if (std::abs(scaled - whole) > 1e-6 * std::max(1.0, std::abs(scaled) * 1e-6)) {
      return InvalidArgument("not a whole number of the smallest unit");
    }
    return static_cast<int64_t>(whole);
  }
  return InvalidArgument("unknown unit \"" + std::string(unit) + "\"");
}

}  // namespace

Result<int64_t> ParseBytes(std::string_view text) {
  return ParseQuantity(text, kByteUnits);
}

Result<int64_t> ParseDurationUs(std::string_view text) {
  return ParseQuantity(text, kTimeUnits);
}

Result<double> ParseNumber(std::string_view text) {
  double number = 0;
  const char* last = text.data() + text.size();
  const auto [end, fault] = std::from_chars(text.data(), last, number);
  if (fault != std::errc() || end != last || !std::isfinite(number)) {
    return InvalidArgument("not a number");
  }
  return number;
}

std::string FormatBytes(int64_t bytes) {
  for (size_t i = 5; i >= 2; --i) {
    const auto factor = static_cast<int64_t>(kByteUnits[i].factor);
    if (bytes != 0 && bytes % factor == 0) {
      return std::to_string(bytes / factor) + std::string(kByteUnits[i].name);
    }
  }
  return std::to_string(bytes);
}

std::string FormatDurationUs(int64_t duration_us) {
  if (duration_us % 1'000'000 == 0) return std::to_string(duration_us / 1'000'000) + "s";
  if (duration_us % 1'000 == 0) return std::to_string(duration_us / 1'000) + "ms";
  return std::to_string(duration_us) + "us";
}

std::string FormatNumber(double number) {
  if (number == std::floor(number) && std::abs(number) <= kExactMax) {
    return std::to_string(static_cast<int64_t>(number));
  }
  std::array<char, 32> text{};
  const auto [end, fault] = std::to_chars(text.data(), text.data() + text.size(), number);
  return std::string(text.data(), fault == std::errc() ? end : text.data());
}

}  // namespace muselet
