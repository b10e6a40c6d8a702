// ConfigFields over the metadata of a GGUF file that begins with "<architecture>.".
#pragma once

#include <string>
#include <utility>

#include "node/model/config_fields.h"
#include "node/model/gguf.h"

namespace muselet {

// Views the file, which must outlive it.
class GgufFields : public ConfigFields {
 public:
  GgufFields(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}
  const GgufFile& file() const { return file_; }

  Result<std::optional<int64_t>> FindInt(std::string_view field) const override;
  Result<std::optional<double>> FindNumber(std::string_view field) const override;
  Result<std::optional<bool>> FindBool(std::string_view field) const override;
  Result<std::optional<std::string>> FindString(std::string_view field) const override;
  Status Fault(std::string_view field, std::string_view problem) const override;

 private:
  const GgufFile& file_;
  std::string prefix_;
};

}  // namespace muselet
