#include "node/cli/number_checks.h"

#include <charconv>
#include <string>

#include "node/config/quantity.h"

namespace muselet {

CLI::Validator Whole(uint64_t min, uint64_t max) {
  return CLI::Validator(
      [min, max](std::string& text) -> std::string {
        uint64_t number = 0;
        const char* last = text.data() + text.size();
        const auto [end, fault] = std::from_chars(text.data(), last, number);
        if (fault == std::errc() && end == last && number >= min && number <= max) return "";
        return "expected a whole number from " + std::to_string(min) + " to " +
               std::to_string(max) + ", found \"" + text + "\"";
      },
      "");
}
CLI::Validator Number(double min, double max) {
  return CLI::Validator(
      [min, max](std::string& text) -> std::string {
        const Result<double> number = ParseNumber(text);
        if (number.ok() && *number >= min && *number <= max) return "";
        return "expected a number from " + FormatNumber(min) + " to " + FormatNumber(max) +
               ", found \"" + text + "\"";
      },
      "");
}

}  // namespace muselet
