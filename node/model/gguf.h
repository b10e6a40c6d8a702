// A GGUF file (versions 2 and 3): typed metadata and tensors, read in place from a memory map.
// Format: ggml-org/ggml docs/gguf.md.
//
// Open walks the whole header once and checks every count, length, type, offset and the alignment
// against the bytes that are there, so that the accessors need not. Memory is taken in proportion
// to entries that were really read, never to what a count claims.
//
// Owns the map: string_views and TensorViews live as long as the object. Immutable; any thread may
// read.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/device/tensor.h"
#include "base/mapped_file.h"
#include "base/status.h"

namespace muselet {

// The numbers are those of the format.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// One metadata pair, in place. Of an array `element_type` and `count` say what `payload` holds.
struct GgufEntry {
  std::string_view key;
  GgufType type = GgufType::kUint8;
  GgufType element_type = GgufType::kUint8;  // of an array; else equal to type
  uint64_t count = 1;                        // elements of an array; else 1
  std::span<const std::byte> payload;        // the encoded elements; strings with their lengths
};

struct GgufTensor {
  std::string_view name;
  TensorView view;  // shape outermost first: the reverse of the file's order
};

class GgufFile {
 public:
  // kNotFound or kPermissionDenied from the system, kDataLoss for a file that is truncated or lies,
  // kInvalidArgument for a version or tensor type that is not supported: "path: field: problem".
  static Result<GgufFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  uint32_t version() const { return version_; }
  std::span<const GgufEntry> entries() const { return entries_; }   // in file order
  std::span<const GgufTensor> tensors() const { return tensors_; }  // in file order
  // Everything before the tensor data.
  std::span<const std::byte> header() const { return file_.bytes().first(header_bytes_); }
  const MappedFile& file() const { return file_; }

  const GgufEntry* Find(std::string_view key) const;          // null if absent
  const GgufTensor* FindTensor(std::string_view name) const;  // null if absent
  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  // Typed reads. kNotFound "path: key: missing"; kInvalidArgument if the value is of another type
  // or out of the result's range. Int and Uint accept every integer type, Float both float types.
  Result<std::string_view> String(std::string_view key) const;
  Result<uint64_t> Uint(std::string_view key) const;
  Result<int64_t> Int(std::string_view key) const;
  Result<double> Float(std::string_view key) const;
  Result<bool> Bool(std::string_view key) const;
  // Arrays of any length, also empty. IntArray accepts every integer type whose values fit.
  Result<std::vector<std::string_view>> StringArray(std::string_view key) const;
  Result<std::vector<float>> FloatArray(std::string_view key) const;
  Result<std::vector<int32_t>> IntArray(std::string_view key) const;

  // As above, but a missing key gives `fallback`; a value of another type is still a fault.
  Result<std::string_view> StringOr(std::string_view key, std::string_view fallback) const;
  Result<uint64_t> UintOr(std::string_view key, uint64_t fallback) const;
  Result<double> FloatOr(std::string_view key, double fallback) const;
  Result<bool> BoolOr(std::string_view key, bool fallback) const;

 private:
  friend class GgufParser;
  explicit GgufFile(MappedFile file) : file_(std::move(file)) {}

  Result<const GgufEntry*> Need(std::string_view key) const;
  Status Fault(std::string_view key, std::string_view problem) const;

  MappedFile file_;
  uint32_t version_ = 0;
  size_t header_bytes_ = 0;
  std::vector<GgufEntry> entries_;
  std::vector<GgufTensor> tensors_;
  std::vector<uint32_t> entries_by_key_;   // indices, sorted by key
  std::vector<uint32_t> tensors_by_name_;  // indices, sorted by name
};

}  // namespace muselet
