// The fields of a model's config, read the same way from config.json and from GGUF metadata, and
// checked against what is possible. Every fault reads "file: field: problem".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace muselet {

// Absent and null fields are nothing; a field of another type is kInvalidArgument. The object that
// is read must outlive this one.
class ConfigFields {
 public:
  virtual ~ConfigFields() = default;
  virtual Result<std::optional<int64_t>> FindInt(std::string_view field) const = 0;
  virtual Result<std::optional<double>> FindNumber(std::string_view field) const = 0;
  virtual Result<std::optional<bool>> FindBool(std::string_view field) const = 0;
  virtual Result<std::optional<std::string>> FindString(std::string_view field) const = 0;
  // kInvalidArgument "file: field: problem".
  virtual Status Fault(std::string_view field, std::string_view problem) const = 0;

  // An integer of 1 to `max` that must be there.
  Result<uint32_t> Size(std::string_view field, uint32_t max) const;
  // The same, or `fallback` (which is not checked) if it is absent.
  Result<uint32_t> SizeOr(std::string_view field, uint32_t fallback, uint32_t max) const;
  // A finite number in [min, max], or `fallback`.
  Result<double> NumberOr(std::string_view field, double fallback, double min, double max) const;
  Result<bool> BoolOr(std::string_view field, bool fallback) const;
  Result<std::string> StringOr(std::string_view field, std::string_view fallback) const;
};

}  // namespace muselet
