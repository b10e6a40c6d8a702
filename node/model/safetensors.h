// The weights of a Hugging Face directory: model.safetensors, or the shards that
// model.safetensors.index.json names. Format: huggingface/safetensors README.md ("Format"): an
// 8-byte length, a JSON header of at most 100 MB, then the data without holes or overlaps.
//
// Owns the maps: names and TensorViews live as long as the object. Immutable; any thread may read.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/device/tensor.h"
#include "base/mapped_file.h"
#include "base/status.h"

namespace muselet {

struct SafetensorsTensor {
  std::string name;
  TensorView view;
  uint32_t file = 0;  // index into Safetensors::files()
};

class Safetensors {
 public:
  // kNotFound if the directory has neither file or lacks a shard; kDataLoss for truncated or lying
  // files; kInvalidArgument for a dtype other than F32, F16, BF16, or a shard outside of the
  // directory. "path: tensor or field: problem".
  static Result<Safetensors> OpenDirectory(const std::string& directory);
  // One file.
  static Result<Safetensors> OpenFile(const std::string& path);

  std::span<const SafetensorsTensor> tensors() const { return tensors_; }  // by file, then offset
  const SafetensorsTensor* Find(std::string_view name) const;              // null if absent
  std::span<const MappedFile> files() const { return files_; }
  // Length and JSON header of a file.
  std::span<const std::byte> header(uint32_t file) const {
    return files_[file].bytes().first(header_bytes_[file]);
  }

 private:
  Safetensors() = default;
  Status Add(const std::string& path);
  Status AddShards(const std::string& index_path, const std::string& directory);
  Status IndexNames();

  std::vector<MappedFile> files_;
  std::vector<size_t> header_bytes_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<uint32_t> by_name_;  // indices, sorted by name
};

}  // namespace muselet
