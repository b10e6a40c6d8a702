#include "node/model/gguf_fields.h"

#include "node/model/file_fault.h"

namespace muselet {

Result<std::optional<int64_t>> GgufFields::FindInt(std::string_view field) const {
  const std::string key = prefix_ + std::string(field);
  if (!file_.Has(key)) return std::optional<int64_t>();
  ASSIGN_OR_RETURN(const int64_t value, file_.Int(key));
  return std::optional<int64_t>(value);
}

Result<std::optional<double>> GgufFields::FindNumber(std::string_view field) const {
  const std::string key = prefix_ + std::string(field);
  if (!file_.Has(key)) return std::optional<double>();
  ASSIGN_OR_RETURN(const double value, file_.Float(key));
  return std::optional<double>(value);
}

Result<std::optional<bool>> GgufFields::FindBool(std::string_view field) const {
  const std::string key = prefix_ + std::string(field);
  if (!file_.Has(key)) return std::optional<bool>();
  ASSIGN_OR_RETURN(const bool value, file_.Bool(key));
  return std::optional<bool>(value);
}

Result<std::optional<std::string>> GgufFields::FindString(std::string_view field) const {
  const std::string key = prefix_ + std::string(field);
  if (!file_.Has(key)) return std::optional<std::string>();
  ASSIGN_OR_RETURN(const std::string_view value, file_.String(key));
  return std::optional<std::string>(std::string(value));
}

Status GgufFields::Fault(std::string_view field, std::string_view problem) const {
  return BadField(file_.path(), prefix_ + std::string(field), problem);
}

}  // namespace muselet
