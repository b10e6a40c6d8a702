#include "node/model/config_fields.h"

#include <fmt/format.h>

#include <cmath>

namespace muselet {

Result<uint32_t> ConfigFields::Size(std::string_view field, uint32_t max) const {
  ASSIGN_OR_RETURN(const auto value, FindInt(field));
  if (!value) return Fault(field, "missing");
  if (*value < 1 || *value > int64_t{max}) {
    return Fault(field, fmt::format("{}, must be 1 to {}", *value, max));
  }
  return static_cast<uint32_t>(*value);
}

Result<uint32_t> ConfigFields::SizeOr(std::string_view field, uint32_t fallback,
                                      uint32_t max) const {
  ASSIGN_OR_RETURN(const auto value, FindInt(field));
  return value ? Size(field, max) : Result<uint32_t>(fallback);
}

Result<double> ConfigFields::NumberOr(std::string_view field, double fallback, double min,
                                      double max) const {
  ASSIGN_OR_RETURN(const auto value, FindNumber(field));
  if (!value) return fallback;
  if (!(*value >= min && *value <= max)) {
    return Fault(field, fmt::format("{}, must be {} to {}", *value, min, max));
  }
  return *value;
}

Result<bool> ConfigFields::BoolOr(std::string_view field, bool fallback) const {
  ASSIGN_OR_RETURN(const auto value, FindBool(field));
  return value.value_or(fallback);
}

Result<std::string> ConfigFields::StringOr(std::string_view field,
                                           std::string_view fallback) const {
  ASSIGN_OR_RETURN(auto value, FindString(field));
  return value ? *std::move(value) : std::string(fallback);
}

}  // namespace muselet
