#include "node/model/json_fields.h"

#include "base/mapped_file.h"
#include "node/model/file_fault.h"

namespace muselet {
namespace {

constexpr size_t kConfigBytesMax = 4 << 20;
// Objects are searched in order, so their size bounds the time that a hostile one can take.
constexpr JsonLimits kConfigLimits = {.depth_max = 32, .values_max = 100'000};

}  // namespace

Result<JsonFields> JsonFields::ReadFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, muselet::ReadFile(path, kConfigBytesMax));
  if (text.empty()) return InvalidArgument(path + ": the file is empty; download it again");
  auto json = ParseJson(text, kConfigLimits);
  if (!json.ok()) return json.status().WithContext(path);
  if (!json->is_object()) return InvalidArgument(path + ": expected a JSON object");
  return JsonFields(path, *std::move(json));
}

Result<std::optional<JsonFields>> JsonFields::FindObject(std::string_view field) const {
  const Json* value = FindMember(object_, field);
  if (value == nullptr) return std::optional<JsonFields>();
  if (!value->is_object()) {
    return Fault(field, std::string("expected an object, got ") + value->type_name());
  }
  return std::optional<JsonFields>(JsonFields(where_ + ": " + std::string(field), *value));
}

Result<std::optional<int64_t>> JsonFields::FindInt(std::string_view field) const {
  if (FindMember(object_, field) == nullptr) return std::optional<int64_t>();
  ASSIGN_OR_RETURN(const int64_t value, GetInt(object_, field, 0, where_));
  return std::optional<int64_t>(value);
}

Result<std::optional<double>> JsonFields::FindNumber(std::string_view field) const {
  if (FindMember(object_, field) == nullptr) return std::optional<double>();
  ASSIGN_OR_RETURN(const double value, GetDouble(object_, field, 0.0, where_));
  return std::optional<double>(value);
}

Result<std::optional<bool>> JsonFields::FindBool(std::string_view field) const {
  if (FindMember(object_, field) == nullptr) return std::optional<bool>();
  ASSIGN_OR_RETURN(const bool value, GetBool(object_, field, false, where_));
  return std::optional<bool>(value);
}

Result<std::optional<std::string>> JsonFields::FindString(std::string_view field) const {
  if (FindMember(object_, field) == nullptr) return std::optional<std::string>();
  ASSIGN_OR_RETURN(std::string value, GetString(object_, field, "", where_));
  return std::optional<std::string>(std::move(value));
}

Status JsonFields::Fault(std::string_view field, std::string_view problem) const {
  return BadField(where_, field, problem);
}

}  // namespace muselet
