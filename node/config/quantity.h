// Byte sizes and durations as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace muselet {

// "4096", "4KiB", "256MiB", "1.5GiB"; kB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of
// 1024; B may stand alone. kInvalidArgument if it is not a whole number of bytes, 0 to 2^53.
Result<int64_t> ParseBytes(std::string_view text);

// "250us", "500ms", "2s", "1.5s", "5m", "1h" in microseconds; a plain number is milliseconds.
Result<int64_t> ParseDurationUs(std::string_view text);

// A decimal number without a unit, e.g. "3", "-2", "0.5", "1e3". No "nan", "inf" or hexadecimal.
Result<double> ParseNumber(std::string_view text);

// The shortest of these forms that is exact.
std::string FormatBytes(int64_t bytes);
std::string FormatDurationUs(int64_t duration_us);
// Without a fraction if it has none.
std::string FormatNumber(double number);

}  // namespace muselet
