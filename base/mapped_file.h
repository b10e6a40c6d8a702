// A read-only memory map of a whole file, and small files as strings.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/status.h"

namespace muselet {

// Owns the mapping; views into bytes() are valid while it lives, also after a move. Immutable, so
// any thread may read. A file that is truncated by someone else while mapped ends the process
// (SIGBUS), as with every mmap.
class MappedFile {
 public:
  // kNotFound, kPermissionDenied or kInvalidArgument (a directory, an empty file) name the path.
  static Result<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  // Tells the kernel that these pages will not be read again soon, so that they stop counting as
  // resident. The bytes stay readable. `part` must lie inside bytes().
  void Release(std::span<const std::byte> part) const;

 private:
  MappedFile(std::string path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The whole of a small file. kInvalidArgument if it is larger than `size_max_bytes`, checked before
// memory is taken.
Result<std::string> ReadFile(const std::string& path, size_t size_max_bytes);

}  // namespace muselet
