// Reads the header of a GGUF file: the part of node/model/gguf.h that meets hostile bytes.
#pragma once

#include <string>

#include "base/byte_io.h"
#include "node/model/gguf.h"

namespace muselet {

// One use: construct, Parse. Fills the GgufFile that it was given.
class GgufParser {
 public:
  explicit GgufParser(GgufFile& out) : out_(out), path_(out.path()), reader_(out.file_.bytes()) {}

  Status Parse();

 private:
  Status ReadPreamble();
  Status ReadEntries();
  Result<GgufEntry> ReadEntry();
  Status ReadValue(GgufEntry& entry);
  Status ReadArray(GgufEntry& entry);
  Status SkipElements(GgufType type, uint64_t count, std::string_view key);
  Status ReadAlignment();
  Status ReadTensors();
  Result<GgufTensor> ReadTensor();
  Status ReadShape(TensorView& view, std::string_view name);
  Status PlaceTensors();
  Status IndexNames();

  template <typename T>
  Result<T> Read(std::string_view field);
  Result<std::string_view> ReadName(std::string_view field, size_t length_max);
  Status Lying(std::string_view field, std::string_view problem) const;

  GgufFile& out_;
  std::string path_;
  ByteReader reader_;
  uint64_t entry_count_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t alignment_ = 32;
  std::vector<uint64_t> offsets_;  // of each tensor, relative to the data section
};

}  // namespace muselet
