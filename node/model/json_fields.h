// ConfigFields over a JSON object: config.json, generation_config.json, or an object in them.
#pragma once

#include <string>
#include <utility>

#include "base/json.h"
#include "node/model/config_fields.h"

namespace muselet {

// Holds its own copy of the object; `where` begins every fault: the file's path, and the field that
// the object stands in, if any.
class JsonFields : public ConfigFields {
 public:
  JsonFields(std::string where, Json object)
      : where_(std::move(where)), object_(std::move(object)) {}
  // A JSON file of config size (at most 4 MiB) that holds one object.
  static Result<JsonFields> ReadFile(const std::string& path);

  // The object in a field, or nothing.
  Result<std::optional<JsonFields>> FindObject(std::string_view field) const;
  const Json& json() const { return object_; }
  const std::string& where() const { return where_; }

  Result<std::optional<int64_t>> FindInt(std::string_view field) const override;
  Result<std::optional<double>> FindNumber(std::string_view field) const override;
  Result<std::optional<bool>> FindBool(std::string_view field) const override;
  Result<std::optional<std::string>> FindString(std::string_view field) const override;
  Status Fault(std::string_view field, std::string_view problem) const override;

 private:
  std::string where_;
  Json object_;
};

}  // namespace muselet
